"""How the device is doing: what the stages count (`counters`) and what the machine says (`host`)."""

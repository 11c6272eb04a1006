"""Measures the device: counts of the stages (`counters`) and sensors of the machine (`host`)."""

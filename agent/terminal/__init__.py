"""Views in a terminal: `top` (a socket in the agent's runtime folder), `watch` (a broker) and `demo`."""

"""Reads the settings (`agent.config.settings`) from their sources, and explains errors in them."""

"""Reading the settings (`agent.config.settings`) from where they stand, and explaining them."""

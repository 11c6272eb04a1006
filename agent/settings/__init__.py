"""Reading the settings (`agent.config`) from where they stand, and explaining them."""

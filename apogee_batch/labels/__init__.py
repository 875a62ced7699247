"""Training labels and where they come from."""

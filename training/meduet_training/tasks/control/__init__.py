"""Training of a ControlNet."""

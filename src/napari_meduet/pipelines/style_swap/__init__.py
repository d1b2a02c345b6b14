"""The style swap and its safety report."""

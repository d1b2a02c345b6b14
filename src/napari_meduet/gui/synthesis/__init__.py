"""The synthesis dock."""

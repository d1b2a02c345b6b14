"""The style swap dock."""

"""Weights, and what they say of themselves."""

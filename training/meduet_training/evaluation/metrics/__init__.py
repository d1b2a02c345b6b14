"""Metrics, each in its own file, on arrays and tensors."""

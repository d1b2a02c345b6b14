"""Metrics of an exported model for its card: round trip, probes, swaps, paired truth, identities."""

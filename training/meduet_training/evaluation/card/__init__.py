"""The metrics on a model's card: round trip, swap, true pairs, domain probes."""

"""Evaluation of a generator: quality, controllability, memorisation."""

"""Evaluation of a generator: quality, memorisation, controllability, counterfactuals."""

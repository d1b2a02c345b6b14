"""Evaluation of a segmenter against labels, other models, and simple baselines."""

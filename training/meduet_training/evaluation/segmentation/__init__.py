"""Evaluation of a segmenter, beside a threshold and an atlas baseline."""

"""Segmentation of scans, and interactive fine-tuning of a segmenter."""

"""Training of a segmenter."""

"""Segmentation and classification with few labels, on the pretrained encoder (specification, section 10)."""

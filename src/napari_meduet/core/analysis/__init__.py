"""Analysis with few labels: segmentation and classification on the pretrained encoder (specification, section 10)."""

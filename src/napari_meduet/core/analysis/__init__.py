"""Analysis with few labels: segmentation and classification on the pretrained encoder (SPEC section 10)."""

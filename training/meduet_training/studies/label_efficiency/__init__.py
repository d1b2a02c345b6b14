"""How much MeDUET and style augmentation bring where few scans have labels (specification, section 14)."""

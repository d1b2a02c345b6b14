"""How much MeDUET and style augmentation bring where few scans have labels (SPEC section 14)."""

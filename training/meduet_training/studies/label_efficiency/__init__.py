"""Label efficiency: the effect of MeDUET and of style augmentation with few labels."""

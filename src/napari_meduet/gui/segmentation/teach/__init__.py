"""Interactive fine-tuning (Teach) in the segmentation dock."""

"""The papers: tensors in, tensors out. No screen, no disk, no clock."""

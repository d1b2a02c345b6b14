"""Segmentation labels and class labels of scans."""

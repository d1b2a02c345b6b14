"""Batch sources: where each kind of training draws its batches from."""

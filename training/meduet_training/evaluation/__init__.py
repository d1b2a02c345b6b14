"""Metrics of a model on patients of the test split, for model cards and the documentation."""

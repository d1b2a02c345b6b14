"""Sampling of new volumes."""

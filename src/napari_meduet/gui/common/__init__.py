"""Widgets and helpers that several docks share."""

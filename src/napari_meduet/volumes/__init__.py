"""Patients' files: reading, checking, preparing, and writing them back."""

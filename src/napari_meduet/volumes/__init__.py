"""Patients' files: read with every check, prepared with an exact way back, written without a half result."""

"""Intensity windows in which scans are shown: CT windows in HU, and percentiles of the values for MR.

The viewer, the pictures of the command line and the panels of the trainings use these values. intensity.py
holds the profiles that normalise scans for the networks.
"""

CT_WINDOWS = {  # lowest and highest HU, from the usual level and width; soft tissue is L 40, W 400
    "soft tissue": (-160.0, 240.0),
    "lung": (-1350.0, 150.0),
    "bone": (-450.0, 1050.0),
    "brain": (0.0, 80.0),
}
MR_PERCENTILES = (1.0, 99.5)

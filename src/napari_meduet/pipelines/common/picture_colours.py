"""Colours of text and ground (RGB) in the pictures that pipelines write."""

INK, FAINT, GROUND = (235, 235, 235), (150, 150, 150), (16, 16, 18)

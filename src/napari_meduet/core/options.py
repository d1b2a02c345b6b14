"""Choices, ranges and defaults that requests, commands and forms share with the computation.

This module does not import torch, so menus and `--help` open at once. `synthesis/sampler_registry.py` does
the same for samplers.
"""

from typing import Literal

StyleMode = Literal["shift", "prototype", "adain", "token"]  # swapping.py
Decode = Literal["residual", "full"]  # of a swap (specification, section 8)
Through = Literal["tokenizer", "meduet"]  # of a round trip
Anatomy = Literal["same", "similar"]  # spatial or pooled content (specification, section 9)
GuidanceForm = Literal["paper", "compositional", "nested"]  # synthesis/guidance.py
Precision = Literal["float32", "bfloat16", "int8"]  # synthesis/acceleration.py
Ablation = Literal["domain", "mftd", "siqc", "disentangle", "demix"]  # terms that objective.py can leave out
CtProfileName = Literal["ct-full", "ct-wide", "ct-soft"]  # napari_meduet/volumes/intensity.py

# Range of the strength of a swap (specification, section 8). Values outside [0, 1] extrapolate the style.
STRENGTH_RANGE = (-0.5, 1.5)

# Default weight of content and of style guidance. The paper uses 3; with weights above 3 contrasts begin to
# saturate, and docs/departures.md explains why 1 is the default here.
GUIDANCE_WEIGHT = 1.0

"""Metadata conditions: a generator that knows only body region and voxel spacing (M-39).

This is the baseline for factor conditioning. The body regions of a crop replace the content, the spacing of
the scan replaces the style. Nulls, dropout, guidance and samplers are the same, so only the conditions
differ.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.generator import Conditions, GeneratorConfig

# Angular frequencies per doubling of the spacing. The lowest one is unique from 1/16 mm to 16 mm.
RATES = (math.pi / 8, math.pi / 4, math.pi / 2, math.pi)
SPACING_WIDTH = 3 * 2 * len(RATES)


def with_attributes(config: GeneratorConfig, num_regions: int) -> GeneratorConfig:
    """Return the configuration of the same generator with metadata conditions and no spatial content."""
    if num_regions < 1:
        raise ValueError(f"num_regions must be at least 1; got {num_regions}.")
    return replace(config, content_width=num_regions, style_width=SPACING_WIDTH, spatial_content=False)


def attribute_conditions(regions: Float[Tensor, "B R"], spacing_mm: Float[Tensor, "B 3"]) -> Conditions:
    """Return the conditions of a generator made `with_attributes`; none is dropped.

    Args:
        regions: fraction of the crop in each body region; one-hot if the crop is in a single region.
        spacing_mm: acquired spacing of the scan along x, y, z.
    """
    kept = torch.zeros(len(regions), dtype=torch.bool, device=regions.device)
    return Conditions(
        content=regions, style=spacing_embedding(spacing_mm), drops_content=kept, drops_style=kept
    )


def spacing_embedding(spacing_mm: Float[Tensor, "B 3"]) -> Float[Tensor, "B S"]:
    """Return cosines and sines of log2 of each spacing in mm."""
    doublings = spacing_mm.log2().unsqueeze(-1)  # (B, 3, 1)
    angles = (doublings * spacing_mm.new_tensor(RATES)).flatten(1)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)

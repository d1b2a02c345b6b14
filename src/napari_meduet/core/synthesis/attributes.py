"""Metadata instead of factors: what a generator can do that is told only region and spacing (M-39).

The baseline of factor conditioning. The body regions of a crop stand where content does, the scan's spacing
where style does; nulls, dropout, guidance and samplers are the same, so that only the condition differs.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.generator import Conditions, GeneratorConfig

RATES = (math.pi / 8, math.pi / 4, math.pi / 2, math.pi)  # per doubling; the slowest tells 1/16 mm from 16 mm
SPACING_WIDTH = 3 * 2 * len(RATES)


def with_attributes(config: GeneratorConfig, num_regions: int) -> GeneratorConfig:
    """The same generator, conditioned on metadata; content has no places then."""
    if num_regions < 1:
        raise ValueError(f"A generator conditioned on body regions knows at least 1; got {num_regions}.")
    return replace(config, content_width=num_regions, style_width=SPACING_WIDTH, spatial_content=False)


def attribute_conditions(regions: Float[Tensor, "B R"], spacing_mm: Float[Tensor, "B 3"]) -> Conditions:
    """Conditions of a generator made `with_attributes`, none dropped.

    Args:
        regions: share of the crop in each body region; one 1 and zeros where it lies in one.
        spacing_mm: of the scan as it was acquired, x, y, z.
    """
    given = torch.zeros(len(regions), dtype=torch.bool, device=regions.device)
    return Conditions(
        content=regions, style=spacing_embedding(spacing_mm), drops_content=given, drops_style=given
    )


def spacing_embedding(spacing_mm: Float[Tensor, "B 3"]) -> Float[Tensor, "B S"]:
    """Cosines and sines of the doublings between each spacing and 1 mm."""
    doublings = spacing_mm.log2().unsqueeze(-1)  # (B, 3, 1)
    angles = (doublings * spacing_mm.new_tensor(RATES)).flatten(1)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)

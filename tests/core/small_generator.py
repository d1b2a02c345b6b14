"""A very small generator with non-zero outputs, and conditions for it."""

from typing import TypeVar

import torch
from torch import nn

from napari_meduet.core.synthesis.generator import Conditions, Generator, GeneratorConfig

Network = TypeVar("Network", bound=nn.Module)

MINUTE = {
    "grid": (2, 2, 2), "width": 12, "depth": 2, "heads": 2, "content_width": 6, "style_width": 4,
    "prediction": "velocity", "refinement_channels": 0, "layout_rank": 3,
}  # fmt: skip


def minute_config(**changes) -> GeneratorConfig:
    """Return the configuration of two narrow blocks on a latent of 4 x 8^3."""
    return GeneratorConfig.tiny(**MINUTE | changes)


def awake(generator: Network, seed: int = 0) -> Network:
    """Return the network with random numbers instead of zeros, so every layer has an effect."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in generator.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
    return generator.eval()


def minute_generator(**changes) -> Generator:
    torch.manual_seed(0)
    return awake(Generator(minute_config(**changes)))


def conditions(num_rows: int = 2, *, spatial: bool = True, num_tokens: int = 8, seed: int = 0) -> Conditions:
    """Return random factors without drops."""
    random = torch.Generator().manual_seed(seed)
    given = torch.zeros(num_rows, dtype=torch.bool)
    return Conditions(
        content=torch.randn(num_rows, 6, generator=random),
        style=torch.randn(num_rows, 4, generator=random),
        drops_content=given,
        drops_style=given,
        spatial_content=torch.randn(num_rows, num_tokens, 6, generator=random) if spatial else None,
    )


def latent(num_rows: int = 2, seed: int = 1, side: int = 8) -> torch.Tensor:
    return torch.randn(num_rows, 4, side, side, side, generator=torch.Generator().manual_seed(seed))

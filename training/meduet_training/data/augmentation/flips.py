"""Flips and quarter turns of latents (M-04), as the tokenizer would have written the turned volume.

A latent channel may stand for a gradient, which changes its sign when the volume is mirrored: turning the
places of a latent alone gives numbers that no volume has (decoded, 5 to 7 dB worse than turned volumes; see
docs/decisions/0008-latent-cache.md). So each turn comes with a linear map of the channels, fitted once for
each tokenizer on random volumes: with it a turned latent decodes to the turned volume, at a loss of 2 dB.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from napari_meduet.tokenizers.tokenizer import Tokenizer

FLIP_PROBABILITY = 0.2  # of each axis (M-04)
TURN_PROBABILITY = 0.2  # in the axial plane, by one, two or three quarters (M-04)
SIDE = 48  # voxels of the random volumes
NUM_VOLUMES = 4
SMOOTHNESS = 2.0  # their amplitudes fall with this power of the frequency, as those of scans do
SEED = 2025
DECIMALS = 5  # of the maps: what lies behind is the processor's

Map = tuple[tuple[float, ...], ...]  # C + 1 rows of C: what each channel, and 1, contributes to each channel

TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "flip x": lambda volume: volume.flip(-3),
    "flip y": lambda volume: volume.flip(-2),
    "flip z": lambda volume: volume.flip(-1),
    "quarter turn": lambda volume: volume.rot90(1, (-3, -2)),
}


@torch.inference_mode()
def fit_channel_maps(tokenizer: Tokenizer) -> dict[str, Map]:
    """For each turn the linear map of channels that it asks for, by least squares."""
    volumes = _random_volumes().to(next(tokenizer.parameters()).device)
    latent = tokenizer.encode(volumes)[0].float().cpu()
    maps = {}
    x, y, _ = tokenizer.stride
    for name, turn in TURNS.items():
        if name == "quarter turn" and x != y:
            continue  # the turned latent would have another shape
        wanted = tokenizer.encode(turn(volumes))[0].float().cpu()
        rows = turn(latent).movedim(1, -1).flatten(0, -2).double()
        rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
        solution = torch.linalg.lstsq(rows, wanted.movedim(1, -1).flatten(0, -2).double()).solution
        maps[name] = tuple(tuple(round(weight, DECIMALS) for weight in row) for row in solution.tolist())
    return maps


def draw_turns(generator: Generator) -> list[str]:
    """Names of the turns of one crop, in order; often none."""
    draw = torch.rand(4, generator=generator).tolist()
    quarters = int(torch.randint(1, 4, (), generator=generator))
    flips = ("flip x", "flip y", "flip z")
    turns = [name for name, drawn in zip(flips, draw[:3], strict=True) if drawn < FLIP_PROBABILITY]
    return turns + ["quarter turn"] * (quarters if draw[3] < TURN_PROBABILITY else 0)


def turned_latent(
    latent: Float[Tensor, "C X Y Z"], turns: list[str], maps: Mapping[str, Map]
) -> Float[Tensor, "C X Y Z"]:
    """The latent of the turned volume, as nearly as a map of channels gives it."""
    for name in turns:
        *linear, constant = torch.tensor(maps[name], dtype=latent.dtype)
        moved = TURNS[name](latent)
        latent = torch.einsum("cxyz,cd->dxyz", moved, torch.stack(linear)) + constant.view(-1, 1, 1, 1)
    return latent


def turned_places(volume: Float[Tensor, "*B X Y Z"], turns: list[str]) -> Float[Tensor, "*B X Y Z"]:
    """A map of places, such as the body, turned the same way."""
    for name in turns:
        volume = TURNS[name](volume)
    return volume


def _random_volumes() -> Float[Tensor, "B 1 X Y Z"]:
    """Cloudy volumes in [0, 1]."""
    generator = torch.Generator().manual_seed(SEED)
    white = torch.randn(NUM_VOLUMES, SIDE, SIDE, SIDE, generator=generator)
    along = torch.fft.fftfreq(SIDE)
    frequency = (along[:, None, None] ** 2 + along[:, None] ** 2 + along**2).sqrt()
    frequency[0, 0, 0] = 1.0
    space = (1, 2, 3)
    clouds = torch.fft.ifftn(torch.fft.fftn(white, dim=space) / frequency**SMOOTHNESS, dim=space).real
    clouds = clouds - clouds.mean(dim=space, keepdim=True)
    clouds = 0.5 + 0.25 * clouds / clouds.std(dim=space, keepdim=True)
    return clouds.clamp(0.0, 1.0)[:, None]

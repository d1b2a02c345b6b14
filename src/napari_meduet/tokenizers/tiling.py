"""Any volume through any tokenizer within a memory budget: cut into tiles, code each, blend the seams.

A tile is read with a margin: its outer `halo` latent voxels, where the network sees the cut, are thrown
away, and over the next `BLEND` voxels neighbouring tiles fade into each other. Where the tokenizer's halo is
its true reach, as for `wavelet`, tiles agree to rounding and no seam exists; where it normalises over space,
as MAISI's does, the fade hides what remains. `benchmarks/tokenizers.py` measures the seam, the tests hold it.
"""

from collections.abc import Callable
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from napari_meduet.tokenizers.tokenizer import Tokenizer

BLEND = 2  # latent voxels over which two tiles fade into each other
MEMORY_BUDGET_BYTES = 2 * 1024**3

Span = tuple[int, int]


def encode_tiled(
    tokenizer: Tokenizer,
    volume: Float[Tensor, "1 1 X Y Z"],
    *,
    memory_budget_bytes: int = MEMORY_BUDGET_BYTES,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Float[Tensor, "1 C x y z"]:
    """Mean latent of a volume of any size; sides are padded up to the stride with their border voxels."""
    return encode_posterior_tiled(
        tokenizer, volume, memory_budget_bytes=memory_budget_bytes, on_progress=on_progress
    )[0]


def encode_posterior_tiled(
    tokenizer: Tokenizer,
    volume: Float[Tensor, "1 1 X Y Z"],
    *,
    memory_budget_bytes: int = MEMORY_BUDGET_BYTES,
    on_progress: Callable[[float], None] = lambda done: None,
) -> tuple[Float[Tensor, "1 C x y z"], Float[Tensor, "1 C x y z"]]:
    """Mean and log-variance of the latent of a volume of any size, padded as by `encode_tiled`."""
    stride = tokenizer.stride
    padding = [amount for side in reversed(volume.shape[2:]) for amount in (0, -side % stride)]
    padded = F.pad(volume, padding, mode="replicate") if any(padding) else volume
    latent_shape = tuple(side // stride for side in padded.shape[2:])

    def encode(tile: tuple[Span, ...]) -> Tensor:
        voxels = padded[(..., *(slice(start * stride, stop * stride) for start, stop in tile))]
        return torch.cat(tokenizer.encode(voxels.to(_device_of(tokenizer))), dim=1)

    both = _blended(encode, latent_shape, tokenizer, 1, memory_budget_bytes, on_progress)
    mean, log_variance = both.chunk(2, dim=1)
    return mean, log_variance


def decode_tiled(
    tokenizer: Tokenizer,
    latent: Float[Tensor, "1 C x y z"],
    *,
    shape: tuple[int, int, int] | None = None,
    memory_budget_bytes: int = MEMORY_BUDGET_BYTES,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Float[Tensor, "1 1 X Y Z"]:
    """The volume of a latent of any size.

    Args:
        shape: of the volume that was encoded; what padding added is cut off again.
    """

    def decode(tile: tuple[Span, ...]) -> Tensor:
        part = latent[(..., *(slice(start, stop) for start, stop in tile))]
        return tokenizer.decode(part.to(_device_of(tokenizer)))

    volume = _blended(
        decode, tuple(latent.shape[2:]), tokenizer, tokenizer.stride, memory_budget_bytes, on_progress
    )
    return volume if shape is None else volume[(..., *(slice(side) for side in shape))]


def _blended(
    code: Callable[[tuple[Span, ...]], Tensor],
    latent_shape: tuple[int, ...],
    tokenizer: Tokenizer,
    scale: int,
    memory_budget_bytes: int,
    on_progress: Callable[[float], None],
) -> Tensor:
    """Code each tile and fade them together on the CPU; `scale` is output voxels per latent voxel."""
    side = max(4, int((memory_budget_bytes / tokenizer.bytes_per_latent_voxel) ** (1 / 3)))
    tiles = list(product(*(_spans(size, side, tokenizer.halo) for size in latent_shape)))
    if len(tiles) == 1:
        result = code(tiles[0]).float().cpu()
        on_progress(1.0)
        return result
    shape = [size * scale for size in latent_shape]
    total, weights = torch.zeros(()), torch.zeros(shape)
    for number, tile in enumerate(tiles, start=1):
        part = code(tile).float().cpu()
        window = _window(tile, latent_shape, tokenizer.halo, scale)
        if number == 1:
            total = torch.zeros(*part.shape[:2], *shape)
        place = tuple(slice(start * scale, stop * scale) for start, stop in tile)
        total[(..., *place)] += part * window
        weights[place] += window
        on_progress(number / len(tiles))
    return total.div_(weights)


def _spans(size: int, side: int, halo: int) -> list[Span]:
    """Tiles of at most `side` along one axis, equally spaced, overlapping by two halos and the fade."""
    overlap = 2 * halo + BLEND
    if size <= max(side, overlap + 1):
        return [(0, size)]
    step = max(1, side - overlap)
    count = -(-(size - overlap) // step)
    length = min(size, step + overlap)
    starts = [round(number * (size - length) / (count - 1)) for number in range(count)] if count > 1 else [0]
    return [(start, start + length) for start in starts]


def _window(tile: tuple[Span, ...], latent_shape: tuple[int, ...], halo: int, scale: int) -> Tensor:
    """Weights of a tile: 0 in its halo, rising over the fade, 1 inside and at the volume's border."""
    window = torch.ones(())
    for (start, stop), size in zip(tile, latent_shape, strict=True):
        place = (torch.arange((stop - start) * scale) + 0.5) / scale  # latent voxels from the tile's start
        low = torch.ones_like(place) if start == 0 else ((place - halo) / BLEND).clamp(0.0, 1.0)
        high = (
            torch.ones_like(place)
            if stop == size
            else ((stop - start - place - halo) / BLEND).clamp(0.0, 1.0)
        )
        window = window[..., None] * torch.minimum(low, high)
    return window


def _device_of(tokenizer: Tokenizer) -> torch.device:
    return next(tokenizer.parameters()).device

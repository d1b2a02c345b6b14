"""Encode and decode volumes of any size within a memory budget: tiles with overlap, blended at the seams.

The outer `halo` latent voxels of each tile see the cut and are discarded. Over the next `BLEND` latent voxels
neighbouring tiles are blended linearly. If the halo covers the whole receptive field, as for `wavelet`, tiles
agree up to rounding. If the tokenizer normalises over space, as MAISI's does, blending hides the remaining
difference. `benchmarks/tokenizers.py` measures the seam.
"""

from collections.abc import Callable
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from napari_meduet.tokenizers.tokenizer import Tokenizer

BLEND = 2  # latent voxels over which two tiles are blended
MEMORY_BUDGET_BYTES = 2 * 1024**3

Span = tuple[int, int]  # first latent voxel of a tile along one axis, and the one after its last


def encode_tiled(
    tokenizer: Tokenizer,
    volume: Float[Tensor, "1 1 X Y Z"],
    *,
    memory_budget_bytes: int = MEMORY_BUDGET_BYTES,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Float[Tensor, "1 C x y z"]:
    """Return the mean latent of a volume of any size.

    Args:
        volume: normalised intensity. Sides that are no multiple of the stride are padded at their end with
            the border voxels.
        memory_budget_bytes: approximate working memory; smaller budgets give smaller tiles.
        on_progress: called after each tile with the finished fraction.

    Examples:
        >>> latent = encode_tiled(model.tokenizer, torch.rand(1, 1, 130, 130, 70))
        >>> latent.shape
        torch.Size([1, 4, 33, 33, 18])
        >>> decode_tiled(model.tokenizer, latent, shape=(130, 130, 70)).shape
        torch.Size([1, 1, 130, 130, 70])
    """
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
    """Return mean and log-variance of the latent of a volume of any size. See `encode_tiled`."""
    padding = stride_padding(volume.shape[2:], tokenizer.stride)
    padded = F.pad(volume, padding, mode="replicate") if any(padding) else volume
    latent_shape = tuple(
        side // stride for side, stride in zip(padded.shape[2:], tokenizer.stride, strict=True)
    )

    def encode(tile: tuple[Span, ...]) -> Tensor:
        voxels = padded[(..., *_scaled(tile, tokenizer.stride))]
        return torch.cat(tokenizer.encode(voxels.to(_device_of(tokenizer))), dim=1)

    both = _blended(encode, latent_shape, tokenizer, (1, 1, 1), memory_budget_bytes, on_progress)
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
    """Return the volume of a latent of any size, in normalised intensity.

    Args:
        shape: voxels of the volume that was encoded; the padding of `encode_tiled` is cut off. None keeps
            the padding.
        memory_budget_bytes: approximate working memory; smaller budgets give smaller tiles.
        on_progress: called after each tile with the finished fraction.
    """

    def decode(tile: tuple[Span, ...]) -> Tensor:
        part = latent[(..., *_scaled(tile, (1, 1, 1)))]
        return tokenizer.decode(part.to(_device_of(tokenizer)))

    volume = _blended(
        decode, tuple(latent.shape[2:]), tokenizer, tokenizer.stride, memory_budget_bytes, on_progress
    )
    return volume if shape is None else volume[(..., *(slice(side) for side in shape))]


def stride_padding(shape: tuple[int, ...], stride: tuple[int, int, int]) -> list[int]:
    """Return the padding, as `F.pad` takes it, that makes each side a multiple of the stride at its end."""
    missing = [-side % step for side, step in zip(shape, stride, strict=True)]
    return [amount for end in reversed(missing) for amount in (0, end)]


def _blended(
    code: Callable[[tuple[Span, ...]], Tensor],
    latent_shape: tuple[int, ...],
    tokenizer: Tokenizer,
    scale: tuple[int, int, int],
    memory_budget_bytes: int,
    on_progress: Callable[[float], None],
) -> Tensor:
    """Encode or decode each tile and blend the tiles on the CPU.

    Args:
        code: encodes or decodes one tile, given its spans in latent voxels.
        scale: output voxels per latent voxel, along each axis.
    """
    side = max(4, int((memory_budget_bytes / tokenizer.bytes_per_latent_voxel) ** (1 / 3)))
    tiles = list(product(*(_spans(size, side, tokenizer.halo) for size in latent_shape)))
    if len(tiles) == 1:
        result = code(tiles[0]).float().cpu()
        on_progress(1.0)
        return result
    shape = [size * factor for size, factor in zip(latent_shape, scale, strict=True)]
    total, weights = torch.zeros(()), torch.zeros(shape)
    for number, tile in enumerate(tiles, start=1):
        part = code(tile).float().cpu()
        window = _window(tile, latent_shape, tokenizer.halo, scale)
        if number == 1:
            total = torch.zeros(*part.shape[:2], *shape)
        where = _scaled(tile, scale)
        total[(..., *where)] += part * window
        weights[where] += window
        on_progress(number / len(tiles))
    return total.div_(weights)


def _scaled(tile: tuple[Span, ...], scale: tuple[int, int, int]) -> tuple[slice, ...]:
    """Return the slices of a tile in a grid with `scale` voxels per latent voxel."""
    return tuple(
        slice(start * factor, stop * factor) for (start, stop), factor in zip(tile, scale, strict=True)
    )


def _spans(size: int, side: int, halo: int) -> list[Span]:
    """Return the spans of tiles along one axis: at most `side` long, equally spaced, with enough overlap."""
    overlap = 2 * halo + BLEND
    if size <= max(side, overlap + 1):
        return [(0, size)]
    step = max(1, side - overlap)
    count = -(-(size - overlap) // step)
    length = min(size, step + overlap)
    starts = [round(number * (size - length) / (count - 1)) for number in range(count)] if count > 1 else [0]
    return [(start, start + length) for start in starts]


def _window(
    tile: tuple[Span, ...], latent_shape: tuple[int, ...], halo: int, scale: tuple[int, int, int]
) -> Tensor:
    """Return the blending weights of a tile: 0 in its halo, then a ramp, 1 inside and at the border."""
    window = torch.ones(())
    for (start, stop), size, factor in zip(tile, latent_shape, scale, strict=True):
        distance = (
            torch.arange((stop - start) * factor) + 0.5
        ) / factor  # latent voxels from the tile's start
        low = torch.ones_like(distance) if start == 0 else ((distance - halo) / BLEND).clamp(0.0, 1.0)
        high = (
            torch.ones_like(distance)
            if stop == size
            else ((stop - start - distance - halo) / BLEND).clamp(0.0, 1.0)
        )
        window = window[..., None] * torch.minimum(low, high)
    return window


def _device_of(tokenizer: Tokenizer) -> torch.device:
    return next(tokenizer.parameters()).device

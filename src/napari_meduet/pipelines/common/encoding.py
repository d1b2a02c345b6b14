"""From a scan to its tokens and back: what every pipeline does first and last (M-01, M-02, M-21).

    scan -> working grid -> latent -> windows -> content and style tokens -> latent -> working grid -> scan's
    grid

Windows lie on one grid of tokens: the working volume is padded at both ends with what it shows at its border,
to a whole number of tokens and at least one window. What is done with the tokens is the caller's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from scipy.ndimage import uniform_filter
from torch import Tensor

from napari_meduet.core.factors import ScanFactors, pooled_factor, scan_factors
from napari_meduet.core.sliding_windows import Position, WindowBlend, cut_window, window_positions
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.interruption import interruptible
from napari_meduet.pipelines.common.progress import parts
from napari_meduet.tokenizers.tiling import decode_tiled, encode_posterior_tiled, encode_tiled
from napari_meduet.volumes.intensity import IntensityProfile, body_mask, clipped_fraction
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.volume import Volume

LARGEST_CLIPPED = 0.05  # of the body, M-03
AIR, AIR_SIDE = 0.005, 3  # at most, in profile units, on average over a cube of so many voxels to a side
WINDOWS_AT_ONCE = 4  # more gain nothing on two CPU cores, and cancelling waits for a whole batch


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedScan:
    """A scan as the tokenizer sees it.

    Attributes:
        units: (X, Y, Z) on the working grid, in profile units.
        body: (X, Y, Z), where the patient is.
        clipped_fraction: share of the body that the profile cannot hold (M-03).
        before, after: voxels of padding at the two ends of each axis.
    """

    volume: Volume
    profile: IntensityProfile
    grid: WorkingGrid
    units: np.ndarray
    body: np.ndarray
    clipped_fraction: float
    before: Position
    after: Position

    @cached_property
    def values(self) -> np.ndarray:
        """The scan's own voxels (X, Y, Z) in its unit; made when they are first asked for, and kept."""
        return self.volume.values()

    @cached_property
    def air(self) -> np.ndarray:
        """(X, Y, Z) on the working grid, where there is certainly nothing: dark and outside the body.

        Lung that a small field of view cuts counts as outside, but is brighter.
        """
        return ~self.body & (uniform_filter(self.units, AIR_SIDE) <= AIR)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is doubtful about the scan in these units, one sentence each (M-03)."""
        if self.clipped_fraction <= LARGEST_CLIPPED:
            return ()
        return (
            f"{self.clipped_fraction:.0%} of the body lie outside the intensity profile that the model was "
            "trained with.",
        )

    def cropped(self, padded: Float[Tensor, "X Y Z"]) -> np.ndarray:
        """A padded working volume without its padding."""
        inner = tuple(
            slice(low, length - high)
            for low, high, length in zip(self.before, self.after, padded.shape, strict=True)
        )
        return padded[inner].numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedScan:
    """The tokens of every window of a scan.

    Attributes:
        latent, log_variance: (C, x, y, z) of the padded working volume, standardised.
        positions: first corner of each window in the latent.
        content: (N, L, Dc).
        style: (N, L, Ds).
        coverage: (N, L), the share of body in each token.
        factors: c0 and the statistics of the style, pooled over all windows (M-21).
    """

    prepared: PreparedScan
    latent: Float[Tensor, "C x y z"]
    log_variance: Float[Tensor, "C x y z"]
    positions: tuple[Position, ...]
    content: Float[Tensor, "N L Dc"]
    style: Float[Tensor, "N L Ds"]
    coverage: Float[Tensor, "N L"]
    factors: ScanFactors

    @cached_property
    def window_styles(self) -> Float[Tensor, "N Ds"]:
        """s0 of each window that holds body."""
        return pooled_factor(self.style, self.coverage)[self.coverage.amax(dim=1) > 0]


def prepare_scan(model: Model, volume: Volume) -> PreparedScan:
    """The scan on the working grid in the model's units.

    Raises:
        InputError: the model does not know the modality.
    """
    profile = model.profile_for(volume.values() if volume.modality == "MR" else None, volume.modality)
    grid = WorkingGrid.for_volume(volume, model.card.working_spacing_mm)
    working = volume.in_unit(np.ascontiguousarray(grid.to_working(volume.voxels)))
    units, body = profile.encode(working), body_mask(working, volume.modality)
    missing = [
        max(window, -(-length // token) * token) - length
        for length, window, token in zip(units.shape, model.window_voxels, model.token_voxels, strict=True)
    ]
    return PreparedScan(
        volume=volume,
        profile=profile,
        grid=grid,
        units=units,
        body=body,
        clipped_fraction=clipped_fraction(profile, working, body),
        before=tuple(amount // 2 for amount in missing),
        after=tuple(amount - amount // 2 for amount in missing),
    )


def padded_units(scan: PreparedScan) -> Float[Tensor, "1 1 X Y Z"]:
    """The working volume, continued into its padding."""
    return F.pad(torch.from_numpy(scan.units)[None, None], padding_amounts(scan), mode="replicate")


def padded_body(scan: PreparedScan) -> Float[Tensor, "1 1 X Y Z"]:
    """1 where the patient is, 0 elsewhere and in the padding."""
    return F.pad(torch.from_numpy(scan.body.astype(np.float32))[None, None], padding_amounts(scan))


def padding_amounts(scan: PreparedScan) -> list[int]:
    """The padding of a scan as `F.pad` wants it: last axis first."""
    ends = zip(reversed(scan.before), reversed(scan.after), strict=True)
    return [amount for pair in ends for amount in pair]


def encode_latent(model: Model, scan: PreparedScan, on_progress: OnProgress) -> Float[Tensor, "1 C x y z"]:
    """The latent of the padded working volume, as the tokenizer writes it."""
    report = _Report(on_progress, "encoding")
    with interruptible(model.tokenizer, report.again):
        latent = encode_tiled(model.tokenizer, padded_units(scan), on_progress=report)
    return finite(latent, "encoding the scan")


def encode_posterior(
    model: Model, units: Float[Tensor, "1 1 X Y Z"], on_progress: OnProgress
) -> tuple[Float[Tensor, "C x y z"], Float[Tensor, "C x y z"]]:
    """Mean and log-variance of the latent of a padded working volume, both standardised."""
    report = _Report(on_progress, "encoding")
    with torch.inference_mode(), interruptible(model.tokenizer, report.again):
        mean, log_variance = encode_posterior_tiled(model.tokenizer, units, on_progress=report)
    log_variance = model.latents.standardised_log_variance(log_variance)
    return finite(model.standardised(mean), "encoding the scan")[0], log_variance[0]


def decode_latent(
    model: Model, scan: PreparedScan, latent: Float[Tensor, "1 C x y z"], on_progress: OnProgress
) -> np.ndarray:
    """The working volume (X, Y, Z) that a latent of the padded volume stands for, in profile units."""
    report = _Report(on_progress, "decoding")
    with interruptible(model.tokenizer, report.again):
        volume = decode_tiled(model.tokenizer, latent, on_progress=report)
    return scan.cropped(finite(volume, "decoding the latent")[0, 0])


def encode_scan(model: Model, volume: Volume, on_progress: OnProgress) -> EncodedScan:
    """Content and style tokens of a scan, window by window.

    Raises:
        InputError: the model does not know the modality, or the scan shows no body.
    """
    first, second = parts(on_progress, 1, 2)
    first(0.0, "preparing")
    prepared = prepare_scan(model, volume)
    latent, log_variance = encode_posterior(model, padded_units(prepared), first)

    config = model.meduet.config
    size: Position = config.latent_shape[1:]
    positions = window_positions(_sides(latent), size)
    content, style = [], []
    for first_of_batch in range(0, len(positions), WINDOWS_AT_ONCE):
        second(first_of_batch / len(positions), "separating content and style")
        batch = positions[first_of_batch : first_of_batch + WINDOWS_AT_ONCE]
        windows = torch.stack([cut_window(latent, position, size) for position in batch])  # (n, C, x, y, z)
        content_tokens, style_tokens = model.meduet.encode(windows.to(model.device))
        content.append(content_tokens.float().cpu())
        style.append(style_tokens.float().cpu())
    second(1.0, "separating content and style")

    # one number per token of the padded volume
    coverage = F.avg_pool3d(padded_body(prepared), model.token_voxels)[0, 0]
    covered = [
        cut_window(coverage, token_place(position, config.patch_size), config.grid).flatten()
        for position in positions
    ]
    contents = finite(torch.cat(content), "separating content and style")
    styles = finite(torch.cat(style), "separating content and style")
    coverages = torch.stack(covered)
    try:
        factors = scan_factors(contents, styles, coverages)
    except ValueError as error:
        raise InputError(str(error)) from error
    return EncodedScan(
        prepared=prepared,
        latent=latent,
        log_variance=log_variance,
        positions=tuple(positions),
        content=contents,
        style=styles,
        coverage=coverages,
        factors=factors,
    )


def decode_windows(
    model: Model,
    scan: EncodedScan,
    restyle: Callable[[slice], Float[Tensor, "n L Ds"]],
    on_progress: OnProgress,
) -> Float[Tensor, "1 C x y z"]:
    """The latent of the scan's content in another style, windows blended, as the tokenizer reads it.

    Args:
        restyle: the style tokens of a run of windows.
    """
    size: Position = model.meduet.config.latent_shape[1:]
    blend = WindowBlend(scan.latent.shape[0], _sides(scan.latent), size)
    for first in range(0, len(scan.positions), WINDOWS_AT_ONCE):
        on_progress(first / len(scan.positions), "joining content and style")
        run = slice(first, first + WINDOWS_AT_ONCE)
        windows = model.meduet.decode(scan.content[run].to(model.device), restyle(run).to(model.device))
        for position, window in zip(scan.positions[run], windows.float().cpu(), strict=True):
            blend.add(position, window)
    on_progress(1.0, "joining content and style")
    return finite(model.restored(blend.blended()), "joining content and style")[None]


def token_grid(scan: EncodedScan, tokens: Float[Tensor, "N L D"], model: Model) -> Float[Tensor, "X Y Z D"]:
    """The windows' tokens on the one grid of tokens they lie on, blended where windows overlap."""
    config = model.meduet.config
    x, y, z = config.grid
    shape = token_place(_sides(scan.latent), config.patch_size)
    blend = WindowBlend(tokens.shape[-1], shape, config.grid)
    for position, window in zip(scan.positions, tokens, strict=True):
        corner = token_place(position, config.patch_size)
        blend.add(corner, rearrange(window, "(x y z) d -> d x y z", x=x, y=y, z=z))
    return rearrange(blend.blended(), "d x y z -> x y z d")


def coverage_grid(scan: EncodedScan, model: Model) -> Float[Tensor, "X Y Z"]:
    """The share of body in each token, on the one grid of tokens that all windows lie on."""
    return token_grid(scan, scan.coverage.unsqueeze(-1), model)[..., 0]


def token_place(place: Position, patch_size: int) -> Position:
    """A place in a latent, counted in tokens."""
    x, y, z = place
    return x // patch_size, y // patch_size, z // patch_size


class _Report:
    """Progress of a tokenizer: told after each tile, and told again between its layers."""

    def __init__(self, on_progress: OnProgress, doing: str) -> None:
        self._on_progress, self._doing, self._done = on_progress, doing, 0.0
        self.again()

    def __call__(self, done: float) -> None:
        self._done = done
        self.again()

    def again(self) -> None:
        self._on_progress(self._done, self._doing)


def _sides(latent: Tensor) -> Position:
    x, y, z = latent.shape[-3:]
    return x, y, z


def finite(tensor: Tensor, step: str) -> Tensor:
    """The tensor, all of whose numbers are finite."""
    if not torch.isfinite(tensor).all():
        raise InputError(
            f"While {step}, the model wrote numbers that are not finite; nothing was kept. "
            "Check the scan's values, or use another model."
        )
    return tensor

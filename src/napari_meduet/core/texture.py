"""Noise and kernel sharpness, which no latent carries (specification, section 8, *Texture*).

What a swap in latent space leaves alone is the remainder r = x - decode(z_ii): the noise of the scan and the
edge its reconstruction kernel left. It is cut into in-plane Gaussian bands, each band's size is measured in
tissue that looks alike in both scans, and the swap moves it towards the style's:

    out = x + up(decode(z_ij) - decode(z_ii)) + sum_b (g_b - 1) r_b

Normalising CT kernels by the energies of frequency bands is established practice (Gallardo-Estrella et al.,
"Normalizing computed tomography data reconstructed with different filter kernels", European Radiology 2016).
Here are tensors of one scan on its own grid; where they come from is the pipelines' business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Standard deviations of the Gaussians between which the bands lie; a scan of 0.7 mm pixels and one of 1.5 mm
# share all but the first band.
BAND_EDGES_MM = (0.45, 0.75, 1.2, 1.9, 3.0)
GAIN_BOUNDS = (0.25, 4.0)
EDGE_GUARD = 4.0  # robust deviations of a band: beyond, a value is an organ's border, not noise
MIN_TISSUE_VOXELS = 500  # fewer tell nothing about noise
SOLVER_SLICES = 8  # enough tissue to settle the gains, few enough to be quick
SOLVER_ROUNDS = 8
SOLVER_STEP = 0.5  # of the way, in logarithms: overlapping bands must not swing
# Cycles per mm times the coarse edge: a little below a band's peak (0.28), as its lower half tells enough.
PEAK = 0.22
CHUNK = 16  # slices at a time: the bands of a whole scan would need five times its memory


@dataclass(frozen=True)
class BandEnergies:
    """How strong each in-plane band of a scan's remainder is.

    Attributes:
        deviations: robust standard deviation of each band, finest first, in HU (CT) or profile units (MR);
            empty if there was too little tissue to measure in.
        pixel_mm: in-plane spacing of the scan, which says which bands it can hold.
    """

    deviations: tuple[float, ...]
    pixel_mm: float

    def holds(self) -> list[bool]:
        """Whether the grid can represent each band: most of what it passes lies below Nyquist's."""
        return [PEAK / edge < 0.5 / self.pixel_mm for edge in BAND_EDGES_MM]


def slice_axis(affine: Float[Tensor, "4 4"]) -> int:
    """The voxel axis along which slices are stacked: the coarsest; of equals, the one nearest to superior."""
    steps = affine[:3, :3]
    spacing = steps.norm(dim=0)
    coarsest = spacing >= 0.9 * spacing.max()
    return int(torch.where(coarsest, steps[2].abs() / spacing, -1.0).argmax())


def band_energies(
    remainder: Float[Tensor, "X Y Z"], tissue: Bool[Tensor, "X Y Z"], pixel_mm: float, axis: int
) -> BandEnergies:
    """Robust deviation of each in-plane band of the remainder inside the tissue.

    Args:
        tissue: where scans look alike: soft tissue of CT, foreground of MR, away from borders.
        pixel_mm: in-plane spacing.
        axis: along which slices are stacked, see `slice_axis`.
    """
    slices, inside = _most_tissue(remainder, tissue, axis)
    if int(inside.sum()) < MIN_TISSUE_VOXELS:
        return BandEnergies((), pixel_mm)
    return BandEnergies(tuple(_deviations(bands(slices, pixel_mm), inside)), pixel_mm)


def band_ratios(own: BandEnergies, other: BandEnergies) -> list[float | None]:
    """Other's energy over own's for each band that both grids can hold, finest first; None for the rest.

    What the other scan holds beyond the own grid's Nyquist frequency would fold back when sampled there, and
    is added to the bands by the areas they cover in the frequency plane.
    """
    if not own.deviations or not other.deviations:
        return [None] * len(BAND_EDGES_MM)
    own_holds, other_holds = own.holds(), other.holds()
    finer = [theirs and not ours for ours, theirs in zip(own_holds, other_holds, strict=True)]
    folded = sum(
        deviation**2 for deviation, is_finer in zip(other.deviations, finer, strict=True) if is_finer
    )
    area = sum(edge**-2 for edge, holds in zip(BAND_EDGES_MM, own_holds, strict=True) if holds)
    ratios: list[float | None] = []
    for edge, mine, theirs, shared in zip(
        BAND_EDGES_MM,
        own.deviations,
        other.deviations,
        (a and b for a, b in zip(own_holds, other_holds, strict=True)),
        strict=True,
    ):
        if not shared or mine <= 0.0:
            ratios.append(None)
        elif folded:
            ratios.append((theirs**2 + folded * edge**-2 / area) ** 0.5 / mine)
        else:
            ratios.append(theirs / mine)
    return ratios


def band_gains(
    remainder: Float[Tensor, "X Y Z"],
    tissue: Bool[Tensor, "X Y Z"],
    axis: int,
    own: BandEnergies,
    other: BandEnergies,
    strength: float,
) -> list[float]:
    """The factor of each band, finest first, with which the result's bands are (other / own) ** strength.

    Neighbouring bands overlap, so the factors are found by trying on a few slices. A band that one of the
    grids cannot hold follows the finest that both can: a kernel that is sharper there is sharper beyond.
    Equal energies, and strength 0, give exactly 1.
    """
    wanted = [None if ratio is None else ratio**strength for ratio in band_ratios(own, other)]
    if all(ratio is None or ratio == 1.0 for ratio in wanted):
        return [1.0] * len(wanted)
    slices, inside = _most_tissue(remainder, tissue, axis)
    before = bands(slices, own.pixel_mm)
    parts = _guarded(before, own)
    start = _deviations(before, inside)
    gains = [1.0 if ratio is None else ratio for ratio in wanted]
    for _ in range(SOLVER_ROUNDS):
        gains = _bounded(_followed(gains, wanted))
        moved = slices + _weighted_sum(gains, parts)
        reached = [
            now / was if was > 0 else 1.0  # a band without texture has no ratio to reach
            for now, was in zip(_deviations(bands(moved, own.pixel_mm), inside), start, strict=True)
        ]
        gains = [
            gain if ratio is None else gain * (ratio / now) ** SOLVER_STEP
            for gain, ratio, now in zip(gains, wanted, reached, strict=True)
        ]
    return _bounded(_followed(gains, wanted))


def texture_correction(
    remainder: Float[Tensor, "X Y Z"], gains: Sequence[float], axis: int, own: BandEnergies
) -> Float[Tensor, "X Y Z"]:
    """What to add to the scan: (gain - 1) times each guarded band, summed; 0 where all gains are 1."""
    if all(gain == 1.0 for gain in gains):
        return torch.zeros_like(remainder)
    correction = torch.empty_like(remainder)
    for source, target in zip(
        remainder.movedim(axis, 0).split(CHUNK), correction.movedim(axis, 0).split(CHUNK), strict=True
    ):
        target.copy_(_weighted_sum(gains, _guarded(bands(source.contiguous(), own.pixel_mm), own)))
    return correction


def bands(slices: Float[Tensor, "N X Y"], pixel_mm: float) -> list[Float[Tensor, "N X Y"]]:
    """In-plane bands, finest first: what each Gaussian takes away from the one before."""
    parts, before = [], slices
    for edge in BAND_EDGES_MM:
        smooth = _blurred(slices, edge / pixel_mm)
        parts.append(before - smooth)
        before = smooth
    return parts


def _guarded(parts: list[Float[Tensor, "N X Y"]], own: BandEnergies) -> list[Float[Tensor, "N X Y"]]:
    """Bands without organ borders: a value far beyond the band's noise fades to 0, so no border rings."""
    return [
        part * torch.exp(-((part / (EDGE_GUARD * max(deviation, 1e-9))) ** 4))
        for part, deviation in zip(parts, own.deviations, strict=True)
    ]


def _weighted_sum(gains: Sequence[float], parts: list[Tensor]) -> Tensor:
    total = torch.zeros_like(parts[0])
    for gain, part in zip(gains, parts, strict=True):
        total += (gain - 1.0) * part
    return total


def _followed(gains: list[float], wanted: list[float | None]) -> list[float]:
    """Gains where a band without a wish takes that of the next coarser one that has one."""
    result, last = list(gains), 1.0
    for index in reversed(range(len(gains))):
        if wanted[index] is None:
            result[index] = last
        last = result[index]
    return result


def _bounded(gains: list[float]) -> list[float]:
    return [min(max(gain, GAIN_BOUNDS[0]), GAIN_BOUNDS[1]) for gain in gains]


def _most_tissue(remainder: Tensor, tissue: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The few slices that hold the most tissue, and where it is."""
    slices, inside = remainder.movedim(axis, 0), tissue.movedim(axis, 0)
    chosen = inside.sum(dim=(1, 2)).topk(min(SOLVER_SLICES, len(slices))).indices.sort().values
    return slices[chosen].contiguous(), inside[chosen]


def _deviations(parts: list[Tensor], inside: Tensor) -> list[float]:
    return [1.4826 * float(part[inside].abs().median()) for part in parts]


def _blurred(slices: Float[Tensor, "N X Y"], sigma: float) -> Float[Tensor, "N X Y"]:
    """Each slice under an in-plane Gaussian of `sigma` pixels.

    As two products with matrices: on a CPU three times faster than convolving a single channel.
    """
    rows, columns = (_gaussian_matrix(size, sigma).to(slices) for size in slices.shape[1:])
    return rows @ slices @ columns.T


def _gaussian_matrix(size: int, sigma: float) -> Float[Tensor, "size size"]:
    """Row i holds the weights of a line's places in its smoothed place i; the line's ends go on for ever."""
    reach = max(1, int(3.0 * sigma + 0.5))
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    places = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, places, kernel.expand(size, -1))

"""From a scan's own grid to the working grid and back (M-01, M-02).

The working grid is RAS-ordered, 1.5 mm isotropic, along the scan's own axes and centred on it: voxel axes are
permuted and flipped, never rotated, so every step is separable and has an exact record. Values move between
the grids by trilinear interpolation at the positions the affines say (never at the half-voxel-shifted ones of
an interpolation "to a size"). Beyond the outermost voxel centres the nearest value holds.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_meduet.errors import InputError
from napari_meduet.volumes.intensity import IntensityProfile
from napari_meduet.volumes.volume import Volume

WORKING_SPACING_MM = 1.5
MAX_WORKING_VOXELS = 2**29  # 2 GiB of float32, eight times a 384 x 384 x 480 mm torso
NUM_THREADS = 2
VOXELS_AT_ONCE = 2**15  # of a plane whose class scores are interpolated together

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Lerp:
    """Linear interpolation along one axis: output k lies `weight[k]` of the way from lower to upper."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float32]

    @classmethod
    def at(cls, positions: np.ndarray, size: int) -> "Lerp":
        """Samples at fractional indices of an axis of that size, clamped to its ends."""
        inside = np.clip(positions, 0, size - 1)
        # A position that is an index up to rounding is that index: an identity grid must change nothing.
        nearest = np.rint(inside)
        inside = np.where(np.abs(inside - nearest) < 1e-9 * size, nearest, inside)
        lower = inside.astype(np.intp)
        upper = np.minimum(lower + 1, size - 1)
        return cls(lower, upper, (inside - lower).astype(np.float32))

    def reversed(self) -> "Lerp":
        """The same samples in the opposite order."""
        return Lerp(self.lower[::-1], self.upper[::-1], self.weight[::-1])

    def is_identity(self, size: int) -> bool:
        """True if the samples are the source itself."""
        position = self.lower + self.weight
        return position.size == size and bool(np.all(position == np.arange(size)))


@dataclass(frozen=True, eq=False)
class WorkingGrid:
    """Where a scan's voxels lie on the working grid, and the way back. M-01."""

    native_shape: Shape
    native_affine: NDArray[np.float64]
    shape: Shape
    affine: NDArray[np.float64]  # working index -> RAS mm
    axes: Shape  # the native axis that each working axis follows
    flips: tuple[bool, ...]  # whether the working axis runs against it

    @classmethod
    def for_volume(cls, volume: Volume, spacing_mm: float = WORKING_SPACING_MM) -> "WorkingGrid":
        """The working grid of a scan: its outermost voxel centres enclose the scan's."""
        native_shape: Shape = volume.voxels.shape
        orientation = nib.orientations.io_orientation(volume.affine)  # native axis -> (RAS axis, direction)
        axes = tuple(int(axis) for axis in np.argsort(orientation[:, 0]))
        flips = tuple(bool(orientation[axis, 1] < 0) for axis in axes)
        native_to_ras_order = nib.orientations.inv_ornt_aff(orientation, native_shape)
        ordered = volume.affine @ native_to_ras_order  # index in RAS order -> RAS mm

        sizes = np.array([native_shape[axis] for axis in axes])
        native_mm = np.linalg.norm(ordered[:3, :3], axis=0)
        num_steps = np.ceil((sizes - 1) * native_mm / spacing_mm - 1e-4)
        shape = tuple(int(steps) + 1 for steps in num_steps)
        if np.prod(shape, dtype=np.float64) > MAX_WORKING_VOXELS:
            extent = " x ".join(f"{mm:.0f}" for mm in sizes * native_mm)
            raise InputError(
                f"This scan covers {extent} mm: at {spacing_mm} mm that is {' x '.join(map(str, shape))} "
                f"voxels, more than {MAX_WORKING_VOXELS:,}. Crop it to the region of interest."
            )
        # Both grids share their centre, so that a flipped scan lands on the same positions.
        affine = np.eye(4)
        affine[:3, :3] = ordered[:3, :3] / native_mm * spacing_mm
        centre = ordered[:3, :3] @ ((sizes - 1) / 2) + ordered[:3, 3]
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return cls(native_shape, volume.affine, shape, affine, axes, flips)

    def to_working(self, native: np.ndarray) -> NDArray[np.float32]:
        """A native array (X, Y, Z) on the working grid, trilinear. M-01."""
        return _resample(self._ras_ordered(native), self._working_samples(), lambda values: values)

    def labels_to_working(self, native: np.ndarray) -> np.ndarray:
        """Labels (X, Y, Z) on the working grid: that of the nearest voxel."""
        nearest = [np.where(lerp.weight < 0.5, lerp.lower, lerp.upper) for lerp in self._working_samples()]
        return np.ascontiguousarray(self._ras_ordered(native)[np.ix_(*nearest)])

    def to_native(self, working: np.ndarray) -> NDArray[np.float32]:
        """A working array back on the scan's own grid and voxel order, trilinear.

        The first axis is the fastest in memory, as in the scan's own voxels.
        """
        if working.shape != self.shape:
            raise ValueError(f"This array is {working.shape}; the working grid is {self.shape}.")
        samples = [
            lerp.reversed() if flip else lerp
            for lerp, flip in zip(self._native_samples(), self.flips, strict=True)
        ]
        order = np.argsort(self.axes)  # the working axis that each native axis follows
        turned = np.asfortranarray(np.transpose(working, order))
        return _resample(turned, [samples[axis] for axis in order], lambda values: values)

    def labels_from_scores(
        self, slabs: Iterable[NDArray[np.float32]], num_classes: int
    ) -> NDArray[np.uint8 | np.uint16]:
        """The class of the largest score at every native voxel: the argmax of what `to_native` gives each.

        Scores pass by slab after slab, and no more is kept of them than two planes. Where the four voxels
        around a native one, at its height, agree on the class, that is its class whatever lies between them:
        interpolated scores are means of theirs. Only the others' scores are interpolated.

        Args:
            slabs: (num_classes, X, Y, n) each, n at will, following each other along the working z axis.

        Raises:
            ValueError: the slabs do not fill the working grid.
        """
        dtype = np.uint8 if num_classes <= np.iinfo(np.uint8).max + 1 else np.uint16
        labels = np.empty(self.native_shape, dtype, order="F")
        ordered = self._ras_ordered(labels)
        x, y, z = self._native_samples()
        planes = _planes_of(slabs, (num_classes, *self.shape[:2]))
        number, below, above = 0, next(planes), None  # below is plane `number`, above the next one
        for k, (lower, weight) in enumerate(zip(z.lower, z.weight, strict=True)):
            while number < lower:
                below, above = next(planes) if above is None else above, None
                number += 1
            scores = below
            if weight > 0:
                above = next(planes) if above is None else above
                scores = _between(below.copy(), above.copy(), weight)
            ordered[:, :, k] = _winners(scores, x, y)
        return labels

    def _ras_ordered(self, native: np.ndarray) -> np.ndarray:
        """A view of a native array with its axes permuted and flipped into RAS order."""
        if native.shape != self.native_shape:
            raise ValueError(f"This array is {native.shape}; the scan's grid is {self.native_shape}.")
        return np.flip(np.transpose(native, self.axes), tuple(axis for axis in range(3) if self.flips[axis]))

    def _steps(self) -> list[tuple[int, int, float]]:
        """Per working axis: native size, working size, native steps in one working step."""
        native_mm = np.linalg.norm(self.native_affine[:3, :3], axis=0)
        working_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        return [
            (self.native_shape[axis], self.shape[k], working_mm[k] / native_mm[axis])
            for k, axis in enumerate(self.axes)
        ]

    def _working_samples(self) -> list[Lerp]:
        return [
            Lerp.at((np.arange(working) - (working - 1) / 2) * step + (native - 1) / 2, native)
            for native, working, step in self._steps()
        ]

    def _native_samples(self) -> list[Lerp]:
        return [
            Lerp.at((np.arange(native) - (native - 1) / 2) / step + (working - 1) / 2, working)
            for native, working, step in self._steps()
        ]


def prepare(volume: Volume, profile: IntensityProfile) -> tuple[NDArray[np.float32], WorkingGrid]:
    """The scan as the network sees it: RAS, 1.5 mm, in profile units [0, 1]; and its grid. M-01, M-03.

    Values are interpolated in the scan's unit and encoded afterwards.
    """
    grid = WorkingGrid.for_volume(volume)
    slope, intercept = np.float32(volume.slope), np.float32(volume.intercept)

    def encoded(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
        return profile.encode(voxels * slope + intercept)

    return _resample(grid._ras_ordered(volume.voxels), grid._working_samples(), encoded), grid


def _resample(
    source: np.ndarray,
    samples: list[Lerp],
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """The source at the crossings of the samples, each plane passed through `finish`.

    Plane by plane along the axis that is slowest in memory, so that what one output plane needs (two source
    planes) stays in the cache and the source is never copied as floats.
    """
    order = np.argsort([-abs(stride) for stride in source.strides], kind="stable")  # slowest axis first
    source = np.transpose(source, order)
    slow, middle, fast = (samples[axis] for axis in order)
    skip_middle, skip_fast = middle.is_identity(source.shape[1]), fast.is_identity(source.shape[2])
    out = np.empty((slow.lower.size, middle.lower.size, fast.lower.size), np.float32)

    def fill(planes: range) -> None:
        plane, above = np.empty(source.shape[1:], np.float32), np.empty(source.shape[1:], np.float32)
        for k in planes:
            np.copyto(plane, source[slow.lower[k]], casting="same_kind")
            if slow.weight[k] > 0:
                np.copyto(above, source[slow.upper[k]], casting="same_kind")
                above -= plane
                above *= slow.weight[k]
                plane += above
            sampled = plane
            if not skip_middle:
                sampled = _between(sampled[middle.lower], sampled[middle.upper], middle.weight[:, None])
            if not skip_fast:
                sampled = _between(
                    np.take(sampled, fast.lower, axis=1), np.take(sampled, fast.upper, axis=1), fast.weight
                )
            out[k] = finish(sampled)

    bounds = np.linspace(0, len(out), NUM_THREADS + 1).astype(int)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(fill, [range(start, stop) for start, stop in pairwise(bounds)]))
    return np.transpose(out, np.argsort(order))


def _between(
    lower: NDArray[np.float32], upper: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """lower + (upper - lower) * weight, in the memory of its arguments."""
    upper -= lower
    upper *= weight
    lower += upper
    return lower


def _planes_of(slabs: Iterable[NDArray[np.float32]], shape: Shape) -> Iterator[NDArray[np.float32]]:
    """The planes of slabs, one after the other."""
    for slab in slabs:
        if slab.shape[:-1] != shape:
            raise ValueError(f"This slab of scores is {slab.shape}; its planes should be {shape}.")
        for k in range(slab.shape[-1]):
            yield np.ascontiguousarray(slab[..., k])
    raise ValueError("The slabs of scores end before the working grid does.")


def _winners(scores: NDArray[np.float32], x: Lerp, y: Lerp) -> NDArray[np.uint16]:
    """The class of the largest interpolated score at the crossings of the samples.

    Args:
        scores: (K, X, Y) on the working grid.
    """
    best = scores.argmax(axis=0).astype(np.uint16)
    winners = best[np.ix_(x.lower, y.lower)]
    others = (
        best[np.ix_(*corner)] for corner in ((x.lower, y.upper), (x.upper, y.lower), (x.upper, y.upper))
    )
    is_agreed = np.logical_and.reduce([winners == other for other in others])
    rows, columns = np.nonzero(~is_agreed)
    for start in range(0, rows.size, VOXELS_AT_ONCE):
        row, column = rows[start : start + VOXELS_AT_ONCE], columns[start : start + VOXELS_AT_ONCE]
        left, right = (
            _between(scores[:, x.lower[row], side], scores[:, x.upper[row], side], x.weight[row])
            for side in (y.lower[column], y.upper[column])
        )  # (K, voxels)
        winners[row, column] = _between(left, right, y.weight[column]).argmax(axis=0)
    return winners

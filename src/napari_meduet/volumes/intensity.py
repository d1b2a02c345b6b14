"""Intensity profiles (M-03): named, invertible, monotone maps between a scan's unit and [0, 1].

A profile is a piecewise-linear curve through knots. It is stored with the model that was trained on it.

C-34: the paper clips to [-175, 250] HU although its tokenizer was trained on [-1000, 1000]; lung becomes 0
there. The default here, `CT_FULL`, keeps lung and bone and spends its range on soft tissue.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import Modality

BODY_HU = -300.0  # between lung parenchyma with air and fat: skin is inside, air around the patient is not

MR_FOREGROUND = 0.1  # of the range between the 0.5th and the 99th percentile
MASKED_SHARE = 0.9  # of the dark voxels; measured: 95 to 98 % in brains without skull, up to 75 % in others


@dataclass(frozen=True)
class IntensityProfile:
    """A strictly increasing piecewise-linear map from values to [0, 1]. M-03."""

    name: str
    knots: tuple[tuple[float, float], ...]  # (value, unit); the first unit is 0, the last is 1

    def __post_init__(self) -> None:
        values, units = zip(*self.knots, strict=True)
        if len(self.knots) < 2 or not np.isfinite(self.knots).all():
            raise ValueError(f"Profile {self.name} needs two finite knots or more; got {self.knots}.")
        if np.any(np.diff(values) <= 0) or np.any(np.diff(units) <= 0):
            raise ValueError(f"The knots of profile {self.name} must increase strictly; got {self.knots}.")
        if (units[0], units[-1]) != (0.0, 1.0):
            raise ValueError(f"The units of profile {self.name} must run from 0 to 1; got {self.knots}.")

    def encode(self, values: np.ndarray) -> NDArray[np.float32]:
        """Values as units in [0, 1]; what lies outside the range becomes 0 or 1."""
        return _piecewise(np.asarray(values, np.float32), self.knots)

    def decode(self, units: np.ndarray) -> NDArray[np.float32]:
        """Units as values: the inverse of `encode` inside the range."""
        return _piecewise(np.asarray(units, np.float32), tuple((unit, value) for value, unit in self.knots))

    def inside(self, values: np.ndarray) -> NDArray[np.bool_]:
        """True where a value lies strictly within the range, so that `encode` loses nothing of it."""
        return (values > self.knots[0][0]) & (values < self.knots[-1][0])


def _piecewise(x: NDArray[np.float32], knots: tuple[tuple[float, float], ...]) -> NDArray[np.float32]:
    """The curve through the knots at x, constant beyond them.

    A sum of clipped ramps: each is monotone in floating point and so is their sum, which np.interp, in
    float64 and several times slower, does not promise after rounding to float32.
    """
    start, end = knots[0][1], knots[-1][1]
    out = np.full_like(x, start)
    for (x0, y0), (x1, y1) in pairwise(knots):
        ramp = np.clip(x, np.float32(x0), np.float32(x1))
        ramp -= np.float32(x0)
        ramp *= np.float32((y1 - y0) / (x1 - x0))
        out += ramp
    return np.clip(out, np.float32(start), np.float32(end), out=out)


CT_SOFT = IntensityProfile("ct-soft", ((-175.0, 0.0), (250.0, 1.0)))  # the paper's (C-34)
CT_WIDE = IntensityProfile("ct-wide", ((-1000.0, 0.0), (1000.0, 1.0)))  # MAISI's
CT_FULL = IntensityProfile("ct-full", ((-1000.0, 0.0), (-175.0, 0.15), (250.0, 0.85), (1500.0, 1.0)))


def profile_named(name: str) -> IntensityProfile:
    """The CT profile of that name; `mr` is fitted to each scan by `fit_mr_profile`."""
    profiles = {profile.name: profile for profile in (CT_SOFT, CT_WIDE, CT_FULL)}
    if name not in profiles:
        raise InputError(
            f"There is no intensity profile named {name!r}; choose one of {', '.join(profiles)}."
        )
    return profiles[name]


def fit_mr_profile(values: np.ndarray) -> IntensityProfile:
    """The profile `mr` of one scan: the 0.5th to 99.5th percentile of its foreground -> [0, 1]. M-03.

    A scan whose background was set to exactly 0, such as a brain without its skull, says itself what its
    foreground is: all else, fluid darker than a tenth of white matter too.
    """
    threshold = _mr_threshold(values)
    num_dark, num_zero = np.count_nonzero(values <= threshold), np.count_nonzero(values == 0)
    is_masked = num_zero > MASKED_SHARE * num_dark
    # no body mask: the voxel order must not matter
    foreground = values[values != 0] if is_masked else values[values > threshold]
    low, high = np.percentile(foreground, (0.5, 99.5)) if foreground.size else (0.0, 0.0)
    if not high > low:
        raise InputError(
            "This MR scan has no contrast: its foreground holds one value only. Check that the right file "
            "was chosen."
        )
    return IntensityProfile("mr", ((float(low), 0.0), (float(high), 1.0)))


def clipped_fraction(profile: IntensityProfile, values: np.ndarray, body: NDArray[np.bool_]) -> float:
    """Fraction of the body's voxels that the profile clips; warn above 0.05. M-03."""
    tissue = values[body]
    if tissue.size == 0:
        return 0.0
    clipped = (tissue < profile.knots[0][0]) | (tissue > profile.knots[-1][0])
    return float(np.count_nonzero(clipped) / tissue.size)


def body_mask(values: np.ndarray, modality: Modality) -> NDArray[np.bool_]:
    """True inside the patient, (X, Y, Z): the largest connected foreground, holes filled slice by slice.

    Holes are filled in planes across the last axis (axial in RAS order): lungs and airways that leave the
    scan through its top are enclosed there. The CT table is left out where a gap separates it.
    """
    threshold = BODY_HU if modality == "CT" else _mr_threshold(values)
    labels, count = cast(tuple[np.ndarray, int], ndimage.label(values > threshold))
    if count == 0:
        return np.zeros(values.shape, np.bool_)
    sizes = np.bincount(labels.ravel(order="K"))
    sizes[0] = 0
    body = labels == sizes.argmax()
    in_plane = np.zeros((3, 3, 3), np.bool_)
    in_plane[:, 1, 1] = in_plane[1, :, 1] = True
    outside, _ = cast(tuple[np.ndarray, int], ndimage.label(~body, structure=in_plane))
    open_air = np.zeros(outside.max() + 1, np.bool_)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        open_air[edge] = True
    open_air[0] = False  # the body itself
    return ~open_air[outside]


def _mr_threshold(values: np.ndarray) -> float:
    """A tenth of the way from the darkest to the brightest voxels, outliers aside.

    Above the noise of air and below muscle in all 22 MR scans of the shared data. Otsu's threshold is not:
    fat is so bright that it parts fat from muscle.
    """
    low, high = np.percentile(values, (0.5, 99))
    return float(low + MR_FOREGROUND * (high - low))

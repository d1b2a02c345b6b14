"""The best linear code of four coefficients for each cube of 4x4x4 voxels: what a tokenizer has to beat.

A principal component analysis of the cubes of the train split, which no other linear code of that size can
beat there in mean squared error.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from einops import rearrange

SIDE = 4
COEFFICIENTS = 4


@dataclass(frozen=True, eq=False)
class LinearCode:
    """Mean cube (64,) and its principal directions (4, 64)."""

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def fitted(cls, scans: Iterable[tuple[np.ndarray, np.ndarray]]) -> Self:
        """The code of these volumes (X, Y, Z), from cubes that touch their masks; all count the same."""
        first, second, count = np.zeros(SIDE**3), np.zeros((SIDE**3, SIDE**3)), 0
        for volume, mask in scans:
            touched = _cubes(mask).reshape(-1, SIDE**3).any(axis=1)
            cubes = _cubes(volume).reshape(-1, SIDE**3)[touched].astype(np.float64)
            first += cubes.mean(axis=0)
            second += cubes.T @ cubes / len(cubes)
            count += 1
        mean = first / count
        _, directions = np.linalg.eigh(second / count - np.outer(mean, mean))  # ascending
        return cls(mean.astype(np.float32), directions[:, -COEFFICIENTS:].T.astype(np.float32))

    def restored(self, volume: np.ndarray) -> np.ndarray:
        """The volume (X, Y, Z) after encoding and decoding; its sides need not be multiples of 4."""
        cubes = _cubes(volume) - self.mean
        decoded = cubes @ self.directions.T @ self.directions + self.mean
        padded = rearrange(decoded, "x y z (p q r) -> (x p) (y q) (z r)", p=SIDE, q=SIDE, r=SIDE)
        return padded[tuple(slice(size) for size in volume.shape)]


def _cubes(volume: np.ndarray) -> np.ndarray:
    """(X, Y, Z) as (x, y, z, 64), continued at its ends with what it shows there."""
    padded = np.pad(volume, [(0, -size % SIDE) for size in volume.shape], mode="edge")
    return rearrange(padded, "(x p) (y q) (z r) -> x y z (p q r)", p=SIDE, q=SIDE, r=SIDE)

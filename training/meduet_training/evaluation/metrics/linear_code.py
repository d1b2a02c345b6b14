"""The best linear code with as many coefficients as a tokenizer: a lower bound for the tokenizer's quality.

The code is a principal component analysis of the chunks of the train split. A chunk has the voxels of one
latent voxel, and the code has as many coefficients as the latent has channels. No other linear code of this
size has a smaller mean squared error on the train split.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from einops import rearrange

Stride = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class LinearCode:
    """Mean chunk (P,) and principal directions (C, P), where P is the product of the stride."""

    mean: np.ndarray
    directions: np.ndarray
    stride: Stride

    @classmethod
    def fit(
        cls, scans: Iterable[tuple[np.ndarray, np.ndarray]], stride: Stride, num_coefficients: int
    ) -> Self:
        """Fit the code to volumes (X, Y, Z), with equal weight for every volume.

        Args:
            scans: volumes and their masks. Only chunks that touch the mask are used.
            stride: voxels of a chunk along each axis.
            num_coefficients: numbers that encode a chunk.
        """
        length = int(np.prod(stride))
        first, second, count = np.zeros(length), np.zeros((length, length)), 0
        for volume, mask in scans:
            is_used = _chunks(mask, stride).reshape(-1, length).any(axis=1)
            chunks = _chunks(volume, stride).reshape(-1, length)[is_used].astype(np.float64)
            first += chunks.mean(axis=0)
            second += chunks.T @ chunks / len(chunks)
            count += 1
        mean = first / count
        _, directions = np.linalg.eigh(second / count - np.outer(mean, mean))  # ascending eigenvalues
        return cls(mean.astype(np.float32), directions[:, -num_coefficients:].T.astype(np.float32), stride)

    def reconstruct(self, volume: np.ndarray) -> np.ndarray:
        """Encode and decode a volume (X, Y, Z); its sides need not be multiples of the stride."""
        p, q, r = self.stride
        chunks = _chunks(volume, self.stride) - self.mean
        decoded = chunks @ self.directions.T @ self.directions + self.mean
        padded = rearrange(decoded, "x y z (p q r) -> (x p) (y q) (z r)", p=p, q=q, r=r)
        return padded[tuple(slice(side) for side in volume.shape)]


def _chunks(volume: np.ndarray, stride: Stride) -> np.ndarray:
    """Cut a volume (X, Y, Z), padded with its border voxels, into chunks (x, y, z, P)."""
    p, q, r = stride
    padded = np.pad(
        volume, [(0, -side % step) for side, step in zip(volume.shape, stride, strict=True)], mode="edge"
    )
    return rearrange(padded, "(x p) (y q) (z r) -> x y z (p q r)", p=p, q=q, r=r)

"""Whether a generator copied: how near its samples lie to the training scans, against unseen real ones.

Distances are those of standardised latents, root mean square over the latent's voxels, to every crop of a
training scan that the generator could have seen (all places along tokens). Turned and mirrored crops are not
looked at. What is near is judged by real crops of patients that nobody trained on.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NEAR_PERCENTILE = 5.0  # of the real crops' distances


def crops_along_tokens(
    latent: Float[Tensor, "C X Y Z"], size: tuple[int, int, int], patch: int
) -> Float[Tensor, "N F"]:
    """Every crop of so many latent voxels that begins at a token, as rows of numbers."""
    cut = latent
    for axis, side in enumerate(size, start=1):
        cut = cut.unfold(axis, side, patch)  # in the end (C, nx, ny, nz, x, y, z)
    return cut.permute(1, 2, 3, 0, 4, 5, 6).flatten(3).flatten(0, 2)


def nearest_distances(
    samples: Float[Tensor, "N C X Y Z"], latents: Iterable[Float[Tensor, "C x y z"]], patch: int
) -> Float[np.ndarray, " N"]:
    """Distance of each sample to the nearest of all crops of these latents."""
    size = (samples.shape[2], samples.shape[3], samples.shape[4])
    rows = samples.flatten(1)
    nearest = torch.full((len(rows),), float("inf"))
    for latent in latents:
        crops = crops_along_tokens(latent, size, patch)
        squared = (
            rows.square().sum(1, keepdim=True) + crops.square().sum(1) - 2 * rows @ crops.T
        )  # (N, crops)
        nearest = torch.minimum(nearest, squared.amin(dim=1))
    return (nearest.clamp(min=0) / rows.shape[1]).sqrt().double().numpy()


def distance_ratio(generated: Float[np.ndarray, " N"], real: Float[np.ndarray, " M"]) -> float:
    """Median distance of generated samples over that of unseen real ones; far below 1: copies."""
    return float(np.median(generated) / np.median(real))


def share_too_near(generated: Float[np.ndarray, " N"], real: Float[np.ndarray, " M"]) -> float:
    """Share of samples nearer than the 5th percentile of unseen real ones; 0.05 where none is copied."""
    return float((generated < np.percentile(real, NEAR_PERCENTILE)).mean())

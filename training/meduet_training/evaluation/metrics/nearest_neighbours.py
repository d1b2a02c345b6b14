"""Distances of generated samples to the nearest training crop, to detect copies (specification, section 13).

A distance is the root mean square difference of two standardised latents. It is measured to every crop of a
training scan that starts at a token, because the generator trains on these. Mirrored and rotated crops are
not compared. Real crops of patients outside the training give the reference distances.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NEAR_PERCENTILE = 5.0  # of the distances of real crops


def crops_along_tokens(
    latent: Float[Tensor, "C X Y Z"], size: tuple[int, int, int], patch: int
) -> Float[Tensor, "N F"]:
    """Return every crop of `size` latent voxels that starts at a token, one flattened crop in each row."""
    crops = latent
    for axis, side in enumerate(size, start=1):
        crops = crops.unfold(axis, side, patch)  # after the loop (C, nx, ny, nz, x, y, z)
    return crops.permute(1, 2, 3, 0, 4, 5, 6).flatten(3).flatten(0, 2)


def nearest_distances(
    samples: Float[Tensor, "N C X Y Z"], latents: Iterable[Float[Tensor, "C x y z"]], patch: int
) -> Float[np.ndarray, " N"]:
    """Return the distance of each sample to the nearest crop of the latents."""
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
    """Return the median distance of generated samples over that of real crops; far below 1 for copies."""
    return float(np.median(generated) / np.median(real))


def fraction_too_near(generated: Float[np.ndarray, " N"], real: Float[np.ndarray, " M"]) -> float:
    """Return the fraction of samples below the 5th percentile of the real distances; 0.05 is expected."""
    return float((generated < np.percentile(real, NEAR_PERCENTILE)).mean())

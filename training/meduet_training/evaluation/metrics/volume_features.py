"""Which extractor describes volumes, and the features of a set of them; every output names it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meduet_training.evaluation.metrics import medicalnet, pyramid_features

SLICES = 8  # of each volume and axis, evenly spaced, in the 2.5-D distance


@dataclass(frozen=True, kw_only=True)
class VolumeExtractor:
    """What turns a volume (X, Y, Z) of profile units into features (F,).

    Attributes:
        sha256: of its weights, or of all that decides its numbers.
    """

    name: str
    sha256: str
    extract: Callable[[Tensor], Tensor]

    def features(self, volumes: Iterable[Tensor]) -> Float[np.ndarray, "N F"]:
        return torch.stack([self.extract(volume.float()) for volume in volumes]).double().numpy()


PYRAMID = VolumeExtractor(
    name=pyramid_features.NAME, sha256=pyramid_features.SHA256, extract=pyramid_features.pyramid_features
)


def volume_extractor(weights: Path | None, device: torch.device) -> VolumeExtractor:
    """MedicalNet where its weights are given, else the pyramid.

    Raises:
        InputError: the file holds no such weights.
    """
    if weights is None:
        return PYRAMID
    network = medicalnet.MedicalNet(weights).to(device)
    return VolumeExtractor(name=medicalnet.NAME, sha256=network.sha256, extract=network)


def slice_features(volumes: Iterable[Tensor]) -> Float[np.ndarray, "N A S F"]:
    """Features of evenly spaced slices across each of the three axes, by the pyramid."""
    described = []
    for volume in volumes:
        axes = []
        for axis, side in enumerate(volume.shape):
            places = [(2 * k + 1) * side // (2 * SLICES) for k in range(SLICES)]
            slices = [PYRAMID.extract(volume.select(axis, place).float()) for place in places]
            axes.append(torch.stack(slices))
        described.append(torch.stack(axes))
    return torch.stack(described).double().numpy()

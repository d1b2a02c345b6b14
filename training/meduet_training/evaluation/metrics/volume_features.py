"""Extractors of volume features: MedicalNet or the pyramid. Every output names its extractor."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meduet_training.evaluation.metrics import medicalnet, pyramid_features

SLICES = 8  # evenly spaced slices of each volume and axis, for the 2.5-D distance


@dataclass(frozen=True, kw_only=True)
class VolumeExtractor:
    """A function from a volume (X, Y, Z) of normalised intensity to features (F,).

    Attributes:
        sha256: digest of its weights or its parameters.
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
    """Return MedicalNet with the given weights, or the pyramid if there are none.

    Raises:
        InputError: the file does not hold weights of MedicalNet.
    """
    if weights is None:
        return PYRAMID
    network = medicalnet.MedicalNet(weights).to(device)
    return VolumeExtractor(name=medicalnet.NAME, sha256=network.sha256, extract=network)


def slice_features(volumes: Iterable[Tensor]) -> Float[np.ndarray, "N A S F"]:
    """Return the pyramid features of evenly spaced slices across each of the three axes."""
    features = []
    for volume in volumes:
        axes = []
        for axis, side in enumerate(volume.shape):
            positions = [(2 * k + 1) * side // (2 * SLICES) for k in range(SLICES)]
            slices = [PYRAMID.extract(volume.select(axis, position).float()) for position in positions]
            axes.append(torch.stack(slices))
        features.append(torch.stack(axes))
    return torch.stack(features).double().numpy()

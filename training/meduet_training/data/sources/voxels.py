"""Batch source of a voxel pretraining: balanced domains, crops with enough body (section 11).

Values are those of the intensity profile, standardised over the body of all scans. Which scan a row shows is
chosen without reading; its place and flips come from the row's seed when it is read. Of a scan only the crop
is read, and the slab of the body mask that it lies in.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Generator, Tensor
from torch.nn import functional as F

from meduet_training.data.augmentation.crops import ATTEMPTS, BODY_SHARE
from meduet_training.data.augmentation.intensity import to_units
from meduet_training.data.caches.prepared import WorkingScan, load_prepared
from meduet_training.data.sources.protocol import Choice, Purpose, generator_of, row_seed
from meduet_training.data.sources.sampling import balanced
from napari_meduet.errors import InputError
from napari_meduet.volumes.intensity import CT_FULL, IntensityProfile

FLIP = 0.2  # of each axis (M-04)
AIR = 0.0  # units: the least of a CT profile, and of an MR scan


@dataclass(frozen=True, kw_only=True)
class VoxelChoice(Choice):
    """A row that shows a crop of one scan."""

    scan: int  # index into the source's paths


class VoxelSource:
    """Crops of prepared scans (`source.BatchSource`); a scan that is smaller than a crop lies amid air.

    Args:
        paths: files of `prepare_cohort`, one a scan; all are read once here, for their domains and
            statistics.
        shape: voxels of a crop.
        ct_profile: the intensity profile for CT.

    Raises:
        InputError: no scan.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        seed: int,
        shape: tuple[int, int, int],
        ct_profile: IntensityProfile = CT_FULL,
    ) -> None:
        if not paths:
            raise InputError("There is no scan to learn from; give a cohort with scans of split train.")
        self.paths, self.seed, self.shape = tuple(paths), seed, shape
        self._ct_profile = ct_profile
        self.latent_shape = (1, *shape)
        digest, labels, sums = (
            hashlib.sha256(f"{shape} {ct_profile.name}".encode()),
            [],
            torch.zeros(3).double(),
        )
        self._samples: list[str] = []
        self._modalities: list[str] = []
        self._sizes: list[tuple[int, ...]] = []
        for path in self.paths:
            scan = load_prepared(path)
            digest.update(f"{scan.sha256} {scan.domain} {scan.values.shape}".encode())
            labels.append(scan.domain)
            self._samples.append(hashlib.sha256(scan.sha256.encode()).hexdigest()[:16])
            self._modalities.append(scan.modality)
            self._sizes.append(scan.values.shape)
            sums += _sums(scan, ct_profile)
        self.domains, self.sha256 = tuple(sorted(set(labels))), digest.hexdigest()
        self._domain = [self.domains.index(label) for label in labels]
        self._by_domain = {
            domain: [number for number, each in enumerate(self._domain) if each == domain]
            for domain in range(len(self.domains))
        }
        mean = sums[1] / sums[0]
        self._mean = mean.float().reshape(1)
        self._std = (sums[2] / sums[0] - mean**2).sqrt().float().reshape(1)

    @property
    def num_scans(self) -> dict[str, int]:
        """How many scans each domain has."""
        return {name: len(self._by_domain[number]) for number, name in enumerate(self.domains)}

    def statistics(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Mean and standard deviation of the profile's units over the body of all scans."""
        return self._mean, self._std

    def choose(self, step: int, count: int) -> list[VoxelChoice]:
        """All rows of a step; each domain as likely as the others, however many scans it has (C-12)."""
        return [self._choose(row_seed(self.seed, step, row)) for row in range(count)]

    def read(self, choices: Sequence[VoxelChoice]) -> dict[str, Tensor]:
        """Crops and their domains; what a row holds depends on its choice alone."""
        return {
            "latent": torch.stack([self._crop(choice) for choice in choices]),
            "domain": torch.tensor([choice.domain for choice in choices]),
        }

    def _choose(self, seed: int) -> VoxelChoice:
        scan = balanced(self._by_domain, generator_of(seed, Purpose.choosing))
        return VoxelChoice(domain=self._domain[scan], seed=seed, sample=self._samples[scan], scan=scan)

    def _crop(self, choice: VoxelChoice) -> Float[Tensor, "1 X Y Z"]:
        generator = choice.generator(Purpose.reading)
        with safe_open(self.paths[choice.scan], framework="numpy") as file:
            box = _place(file, self._sizes[choice.scan], self.shape, generator)
            values = torch.from_numpy(file.get_slice("values")[box]).float()
        units = _amid_air(to_units(values, self._modalities[choice.scan], self._ct_profile), self.shape)
        crop = (units - self._mean) / self._std
        flips = [axis for axis in range(3) if float(torch.rand((), generator=generator)) < FLIP]
        return crop.flip(flips).unsqueeze(0)


def _sums(scan: WorkingScan, ct_profile: IntensityProfile) -> Float[Tensor, "3"]:
    """Number, sum and sum of squares of the units in a scan's body."""
    values = torch.from_numpy(scan.values[scan.body]).float()
    inside = to_units(values, scan.modality, ct_profile).double()
    return torch.stack([torch.tensor(len(inside)), inside.sum(), inside.square().sum()])


def _place(file: Any, size: Sequence[int], shape: Sequence[int], generator: Generator) -> tuple[slice, ...]:
    """A random place of a crop with enough body in it, or the last that was tried.

    An axis that is shorter than the crop is taken whole.
    """
    box: tuple[slice, ...] = ()
    for _ in range(ATTEMPTS):
        box = tuple(_stretch(whole, side, generator) for whole, side in zip(size, shape, strict=True))
        if _body_in(file, size, box).mean() >= BODY_SHARE:
            break
    return box


def _stretch(whole: int, side: int, generator: Generator) -> slice:
    start = int(torch.randint(max(whole - side, 0) + 1, (), generator=generator))
    return slice(start, start + min(side, whole))


def _body_in(file: Any, size: Sequence[int], box: tuple[slice, ...]) -> NDArray[np.uint8]:
    """The body mask in a box: eight voxels are a byte, and the slab along X that holds the box is read."""
    plane = prod(size[1:])
    first, last = box[0].start * plane, box[0].stop * plane
    packed = file.get_slice("body")[first // 8 : -(-last // 8)]
    slab = np.unpackbits(packed)[first % 8 :][: last - first].reshape(-1, *size[1:])
    return slab[:, *box[1:]]


def _amid_air(units: Float[Tensor, "P Q R"], shape: Sequence[int]) -> Float[Tensor, "X Y Z"]:
    """A crop of the whole shape, with air around what a small scan shows."""
    missing = [side - size for side, size in zip(shape, units.shape, strict=True)]
    return F.pad(units, [part for gap in missing[::-1] for part in (gap // 2, gap - gap // 2)], value=AIR)

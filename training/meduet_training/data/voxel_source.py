"""Prepared scans as a pretraining on voxels draws them: domains alike, crops with enough body (SPEC 11).

Values are those of the intensity profile, standardised over the body of all scans. Which scan a row shows is
chosen without reading; its place and flips come from the row's seed when it is read.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from meduet_training.data.crops import ATTEMPTS, BODY_SHARE
from meduet_training.data.prepared import WorkingScan, load_prepared
from meduet_training.data.sampling import balanced
from meduet_training.data.source import Choice, Purpose, generator_of, row_seed
from meduet_training.data.units import to_units
from napari_meduet.errors import InputError

FLIP = 0.2  # of each axis (M-04)


@dataclass(frozen=True, kw_only=True)
class VoxelChoice(Choice):
    """A row that shows a crop of one scan."""

    scan: int  # index into the source's paths


class VoxelSource:
    """Crops of prepared scans (`source.BatchSource`); a scan is read each time a row shows it.

    Args:
        paths: files of `prepare_cohort`, one a scan; all are read once here, for their domains and
            statistics.
        side: voxels along each axis of a crop.

    Raises:
        InputError: no scan, or one that is smaller than a crop.
    """

    def __init__(self, paths: Sequence[Path], seed: int, side: int = 96) -> None:
        if not paths:
            raise InputError("There is no scan to learn from; give a cohort with scans of split train.")
        self.paths, self.seed, self.side = tuple(paths), seed, side
        self.latent_shape = (1, side, side, side)
        digest, labels, samples, sums = hashlib.sha256(str(side).encode()), [], [], torch.zeros(3).double()
        for path in self.paths:
            scan = load_prepared(path)
            if min(scan.values.shape) < side:
                shape = " x ".join(map(str, scan.values.shape))
                raise InputError(
                    f"{path.name}: a scan of {shape} voxels is smaller than a crop of {side}; leave it out "
                    "of the cohort."
                )
            digest.update(f"{scan.sha256} {scan.domain} {scan.values.shape}".encode())
            labels.append(scan.domain)
            samples.append(hashlib.sha256(scan.sha256.encode()).hexdigest()[:16])
            inside = _units(scan)[torch.from_numpy(scan.body)].double()
            sums += torch.stack([torch.tensor(len(inside)), inside.sum(), inside.square().sum()])
        self.domains, self.sha256 = tuple(sorted(set(labels))), digest.hexdigest()
        self._domain = [self.domains.index(label) for label in labels]
        self._sample = samples
        self._by_domain = {
            domain: [number for number, each in enumerate(self._domain) if each == domain]
            for domain in range(len(self.domains))
        }
        mean = sums[1] / sums[0]
        self._mean = mean.float().reshape(1)
        self._std = (sums[2] / sums[0] - mean**2).sqrt().float().reshape(1)

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
        return VoxelChoice(domain=self._domain[scan], seed=seed, sample=self._sample[scan], scan=scan)

    def _crop(self, choice: VoxelChoice) -> Float[Tensor, "1 X Y Z"]:
        generator = choice.generator(Purpose.reading)
        scan = load_prepared(self.paths[choice.scan])
        box = _place(torch.from_numpy(scan.body), self.side, generator)
        crop = (_units(scan, box) - self._mean) / self._std
        flips = [axis for axis in range(3) if float(torch.rand((), generator=generator)) < FLIP]
        return crop.flip(flips).unsqueeze(0)


def _units(scan: WorkingScan, box: tuple[slice, ...] = (slice(None),) * 3) -> Float[Tensor, "X Y Z"]:
    return to_units(torch.from_numpy(scan.values[box]).float(), scan.modality)


def _place(body: Bool[Tensor, "X Y Z"], side: int, generator: Generator) -> tuple[slice, ...]:
    """A random place of a crop with enough body in it, or the last that was tried."""
    box: tuple[slice, ...] = ()
    for _ in range(ATTEMPTS):
        corner = [int(torch.randint(size - side + 1, (), generator=generator)) for size in body.shape]
        box = tuple(slice(start, start + side) for start in corner)
        if body[box].float().mean() >= BODY_SHARE:
            break
    return box

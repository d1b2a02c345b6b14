"""A latent cache as a pretraining draws from it: domains alike, random crops with enough body in them (C-12).

Which scan a row shows is known from the list of the cache; its place, its posterior's noise (C-32) and its
turns (M-04) come from the row's seed when it is read. What is damaged is found by its checksum before a
number of it is used; the row then shows another scan of its domain, and the count goes up.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from meduet_training.data.augmentation.flips import draw_turns, turned_latent, turned_places
from meduet_training.data.caches.latent_chunks import CHUNK_SIDE, CorruptedFile, Position
from meduet_training.data.caches.latent_entry import WINDOW, LatentEntry, open_latent_entry
from meduet_training.data.caches.latents import (
    CacheRow,
    encodable,
    entry_path,
    read_description,
    read_summary,
)
from meduet_training.data.sources.protocol import Choice, Purpose, generator_of, row_seed
from meduet_training.data.sources.sampling import balanced, one_of
from meduet_training.data.sources.validation_crops import ValidationCrops, evenly
from meduet_training.runtime.messages import print_to_stderr
from meduet_training.runtime.retry import retry_storage
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.errors import InputError

TOKEN = 4  # latent voxels of a token (M-02)
BODY_SHARE = 0.4  # of a crop at least, where the scan allows it
PLACES_TRIED = 8
SCANS_TRIED = 16  # of a domain, for a row whose own cannot be read
NOTE = "Crops of held-out scans of the latent cache, of patients that the run does not learn from."

Read = TypeVar("Read")


@dataclass(frozen=True, kw_only=True)
class CacheChoice(Choice):
    """A row that shows a crop of one scan."""

    scan: int  # index into the source's rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """Part of an entry: mean and log-variance (C, x, y, z), and the body's share (x, y, z)."""

    mean: Tensor
    log_variance: Tensor
    body: Tensor


class CacheSource:
    """Draws from a latent cache on disk (`source.BatchSource`).

    Args:
        side: latent voxels along a crop; what the network reads.
        turns: whether crops are flipped and turned at random (M-04).

    Raises:
        InputError: there is no cache, it is not finished, or holds nothing that may train.
    """

    def __init__(self, folder: Path, seed: int, *, side: int = WINDOW, turns: bool = True) -> None:
        if not 0 < side <= WINDOW or side % TOKEN:
            raise InputError(
                f"A latent cache gives crops of up to {WINDOW} latent voxels in whole tokens of {TOKEN}; the "
                f"network reads {side}."
            )
        self.folder, self.seed, self.side, self.turns = folder, seed, side, turns
        description = read_description(folder)
        summary = read_summary(folder, description)
        self.spec, self._maps = description.spec, description.channel_maps
        rows = encodable(description.rows, summary.failed)
        self.rows = [row for row in rows if row.trains]
        self.held_out = [row for row in rows if row.split == "test"]
        if not self.rows:
            raise InputError(f"{folder.name}: no scan of this cache's train split may train and was encoded.")
        self.num_failed = len(summary.failed)
        self.domains = tuple(sorted({row.domain for row in self.rows}))
        self.sha256 = self._identity()
        self.latent_shape = (self.spec.channels, side, side, side)
        self._mean, self._std = torch.tensor(summary.mean), torch.tensor(summary.std)
        number = {domain: index for index, domain in enumerate(self.domains)}
        self._domain = [number[row.domain] for row in self.rows]
        self._by_domain: dict[int, list[int]] = defaultdict(list)
        for scan, domain in enumerate(self._domain):
            self._by_domain[domain].append(scan)
        self._num_skipped = torch.zeros((), dtype=torch.int64).share_memory_()  # over all loading processes
        self._told: set[str] = set()

    @property
    def num_skipped(self) -> int:
        """How often a scan could not be read and another was shown, in all processes that read."""
        return int(self._num_skipped)

    @property
    def num_scans(self) -> dict[str, int]:
        """How many scans each domain has."""
        return {name: len(self._by_domain[number]) for number, name in enumerate(self.domains)}

    def statistics(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        return self._mean, self._std

    def choose(self, step: int, count: int) -> list[CacheChoice]:
        """`count` scans: for each a domain, drawn from all alike, and one of its scans."""
        return [self._choose(row_seed(self.seed, step, row)) for row in range(count)]

    def read(self, choices: Sequence[CacheChoice]) -> dict[str, Tensor]:
        """A crop for each choice; where its scan cannot be read, of another one of its domain.

        Raises:
            InputError: too many scans of a domain cannot be read.
        """
        rows = [self._read_row(choice) for choice in choices]
        return {
            "latent": torch.stack([latent for latent, _ in rows]),
            "coverage": torch.stack([coverage for _, coverage in rows]),
            "domain": torch.tensor([choice.domain for choice in choices]),
        }

    def validation_crops(self, count: int, seed: int) -> ValidationCrops:
        """Crops of the test split, evenly over its domains; none where the cache holds none."""
        order = evenly([row.domain for row in self.held_out], len(self.held_out), seed)
        latents, coverages, rows = [], [], []
        for number in range(count if order else 0):
            row, generator = self.held_out[order[number % len(order)]], generator_of(seed, number)
            crop = self._checked(row, lambda row=row, generator=generator: self._crop(row, generator))
            if crop is not None:
                latents.append(self._standardised(crop.mean))
                coverages.append(_coverage(crop.body))
                rows.append(row)
        nothing = torch.zeros(0, *self.latent_shape), torch.zeros(0, (self.side // TOKEN) ** 3)
        return ValidationCrops(
            latent=torch.stack(latents) if rows else nothing[0],
            coverage=torch.stack(coverages) if rows else nothing[1],
            domains=tuple(row.domain for row in rows),
            patients=tuple(row.patient for row in rows),
            modalities=tuple(row.modality for row in rows),
            note=NOTE,
            ct_profile=self.spec.ct_profile,
        )

    def _choose(self, seed: int) -> CacheChoice:
        scan = balanced(self._by_domain, generator_of(seed, Purpose.choosing))
        return CacheChoice(domain=self._domain[scan], seed=seed, sample=self.rows[scan].key, scan=scan)

    def _read_row(self, choice: CacheChoice) -> tuple[Tensor, Tensor]:
        """Latent and coverage of a row; they depend on the choice alone."""
        others = choice.generator(Purpose.choosing)
        scan = choice.scan
        for _ in range(SCANS_TRIED):
            row, generator = self.rows[scan], choice.generator(Purpose.reading)
            crop = self._checked(row, lambda row=row, generator=generator: self._crop(row, generator))
            if crop is not None:
                return self._seen(crop, generator)
            scan = one_of(self._by_domain[choice.domain], others)
        raise InputError(
            f"{self.folder.name}: {SCANS_TRIED} scans of the domain {self.domains[choice.domain]} cannot be "
            "read; run meduet-cache --verify, which makes damaged ones anew."
        )

    def _seen(self, crop: Crop, generator: Generator) -> tuple[Tensor, Tensor]:
        """A fresh latent of the crop, turned and standardised, and the body in its tokens."""
        noise = torch.randn(crop.mean.shape, generator=generator)
        latent = crop.mean + (0.5 * crop.log_variance).exp() * noise
        turns = [turn for turn in draw_turns(generator) if turn in self._maps] if self.turns else []
        latent = turned_latent(latent, turns, self._maps)
        return self._standardised(latent), _coverage(turned_places(crop.body, turns))

    def _standardised(self, latent: Float[Tensor, "C X Y Z"]) -> Float[Tensor, "C X Y Z"]:
        return LatentStandardisation.of_channels(self._mean, self._std).standardised(latent)

    def _checked(self, row: CacheRow, read: Callable[[], Read]) -> Read | None:
        """What is read of a scan; None, counted and said once, if it cannot be."""
        try:
            return retry_storage(read)
        except (CorruptedFile, OSError) as error:
            self._num_skipped += 1
            if row.key not in self._told:
                self._told.add(row.key)
                reason = (
                    str(error) if isinstance(error, CorruptedFile) else f"it cannot be read: {error.strerror}"
                )
                print_to_stderr(
                    f"{self.folder.name}: scan {row.key} is skipped, for {reason}; meduet-cache --verify "
                    "makes it anew."
                )
            return None

    def _crop(self, row: CacheRow, generator: Generator) -> Crop:
        """A random crop of a scan.

        Raises:
            Damaged, OSError: it is not what was written, or not there.
        """
        entry = open_latent_entry(entry_path(self.folder, row.key), row.key, self.spec)
        place, size = _place(entry, self.side, generator), (self.side, self.side, self.side)
        values = entry.chunks.read(place, size).float()
        if not values.isfinite().all():
            raise CorruptedFile("its numbers are not finite")
        mean, log_variance = values[:-1].chunk(2)
        return Crop(mean=mean, log_variance=log_variance, body=values[-1])

    def _identity(self) -> str:
        rows = [[row.key, row.domain, row.patient] for row in self.rows]
        text = json.dumps([self.spec.sha256, self.side, self.turns, rows])
        return hashlib.sha256(text.encode()).hexdigest()


def _place(entry: LatentEntry, side: int, generator: Generator) -> Position:
    """Where a crop begins: the first place tried with enough body in it, or else the best of them."""
    body, best, most = entry.body, (0, 0, 0), -1.0
    room = [width - side + 1 for width in entry.chunks.shape]
    for _ in range(PLACES_TRIED):
        x, y, z = (int(torch.randint(places, (), generator=generator)) for places in room)
        share = _share_of(body, (x, y, z), side)
        if share > most:
            best, most = (x, y, z), share
        if most >= BODY_SHARE:
            break
    return best


def _share_of(cubes: np.ndarray, corner: Position, side: int) -> float:
    """Share of body in a crop, from that in each cube that it touches."""
    weights = []
    for start, count in zip(corner, cubes.shape, strict=True):
        first = np.arange(count) * CHUNK_SIDE
        overlap = np.minimum(first + CHUNK_SIDE, start + side) - np.maximum(first, start)
        weights.append(np.clip(overlap, 0, None) / side)
    return float(np.einsum("ijk,i,j,k->", cubes, *weights))


def _coverage(body: Float[Tensor, "X Y Z"]) -> Float[Tensor, " L"]:
    """Share of body in each token, in the order of the tokens."""
    return F.avg_pool3d(body[None, None], TOKEN).flatten()

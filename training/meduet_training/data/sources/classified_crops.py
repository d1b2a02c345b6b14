"""Crops of scans whose class is known, as the training of a classifier draws them (`source.BatchSource`).

Classes alike, then scans of a class alike; several crops of each scan that is drawn, with enough body in
them. Latents are drawn anew from the posterior, flipped and turned (M-04).
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from meduet_training.data.augmentation.flips import Map, draw_turns, turned_latent, turned_places
from meduet_training.data.caches.factors import FactorEntry
from meduet_training.data.sources.factors import corner_with_body
from meduet_training.data.sources.protocol import Choice, Purpose, generator_of, row_seed
from meduet_training.data.sources.sampling import balanced, rows_by
from napari_meduet.models.model import Model
from napari_meduet.pipelines.segmentation.training_samples import MODALITIES

SUB_CROPS = 4  # of a scan, side by side in a batch (specification, section 10)
QUARTER = "quarter turn"  # would give crops that are not as wide as deep another shape


@dataclass(frozen=True, kw_only=True)
class ClassifiedChoice(Choice):
    """A row that shows a crop of one scan."""

    scan: int
    corner: tuple[int, int, int]  # in tokens


class ClassifiedSource:
    """Draws from scans whose latents were computed before.

    Args:
        labels: number of the class of each entry.
        size: tokens along a crop; no entry is smaller.
        maps: of channels, for each turn (augmentation/flips.py).
    """

    def __init__(
        self,
        entries: Sequence[FactorEntry],
        labels: Sequence[int],
        size: tuple[int, int, int],
        seed: int,
        model: Model,
        maps: Mapping[str, Map],
    ) -> None:
        self.entries, self.labels, self.size, self.seed = list(entries), list(labels), size, seed
        self.domains = tuple(sorted({entry.domain for entry in entries}))
        self._by_class = rows_by(torch.tensor(self.labels))
        self._latents = model.latents
        self._maps = maps
        self._is_square = size[0] == size[1]
        patch = model.meduet.config.patch_size
        x, y, z = (patch * tokens for tokens in size)
        self.latent_shape = (model.tokenizer.channels, x, y, z)

    @property
    def sha256(self) -> str:
        rows = [
            (entry.key, entry.domain, label) for entry, label in zip(self.entries, self.labels, strict=True)
        ]
        return hashlib.sha256(f"{self.size} {rows}".encode()).hexdigest()

    @property
    def num_scans(self) -> dict[str, int]:
        return dict(Counter(entry.domain for entry in self.entries))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """0 and 1: the cache holds standardised latents."""
        channels = self.latent_shape[0]
        return torch.zeros(channels), torch.ones(channels)

    def choose(self, step: int, count: int) -> list[ClassifiedChoice]:
        return [self._choose(step, row) for row in range(count)]

    def read(self, choices: Sequence[ClassifiedChoice]) -> dict[str, Tensor]:
        rows = [self._read(choice) for choice in choices]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _choose(self, step: int, row: int) -> ClassifiedChoice:
        first = row_seed(self.seed, step, row - row % SUB_CROPS)  # of the rows that show the same scan
        scan = balanced(self._by_class, generator_of(first, Purpose.choosing))
        seed = row_seed(self.seed, step, row)
        entry = self.entries[scan]
        return ClassifiedChoice(
            domain=self.domains.index(entry.domain),
            seed=seed,
            sample=entry.key,
            scan=scan,
            corner=corner_with_body(entry, self.size, generator_of(seed, Purpose.choosing, row)),
        )

    def _read(self, choice: ClassifiedChoice) -> dict[str, Tensor]:
        entry, generator = self.entries[choice.scan], choice.generator(Purpose.reading)
        crop = entry.read(choice.corner, self.size)
        noise = torch.randn(crop["mean"].shape, generator=generator)
        turns = [turn for turn in draw_turns(generator) if turn != QUARTER or self._is_square]
        latent = crop["mean"] + (0.5 * crop["log_variance"]).exp() * noise
        turned = turned_latent(self._latents.restored(latent), turns, self._maps)
        return {
            "latent": self._latents.standardised(turned),
            "coverage": turned_places(crop["coverage"], turns).flatten(),
            "label": torch.tensor(self.labels[choice.scan]),
            "modality": torch.tensor(MODALITIES.index(entry.modality)),
            "domain": torch.tensor(choice.domain),
        }

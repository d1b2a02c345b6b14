"""Crops of labelled scans, as the training of a segmenter draws them (`source.BatchSource`).

Most crops are drawn around a voxel of a class, each class alike however few scans show it, in any pose
(`pipelines/examples.choose_example`). The posterior's noise is drawn anew each time.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from meduet_training.data.caches.training_samples import SampleEntry, StoredSample
from meduet_training.data.labels.task import LabelTask
from meduet_training.data.sources.protocol import Choice, Purpose, generator_of, row_seed
from napari_meduet.core.sliding_windows import Position
from napari_meduet.pipelines.segmentation.training_samples import Crop, choose_example, draw_crop, read_crop

EXAMPLES_AIMED_AT = 48  # over all poses: turning a scan once more is worth it where there are few
MOST_POSES = 12
HELD_POSES = (1_000, 1_001)  # that no training draws: they judge a run that has no scan to spare


@dataclass(frozen=True, kw_only=True)
class LabelledChoice(Choice):
    """A row that shows a crop of one example."""

    example: int
    crop: Crop


class LabelledSource:
    """Draws from examples that were made before.

    Args:
        entries: all of one number of channels.
        size: latent voxels along a crop.
        stride: voxels along a latent voxel.
    """

    def __init__(
        self, entries: Sequence[SampleEntry], task: LabelTask, size: Position, stride: Position, seed: int
    ) -> None:
        self.entries, self.size, self.stride, self.seed = list(entries), size, stride, seed
        self._task = task
        self.domains = tuple(sorted({entry.domain for entry in entries}))
        self._opened: dict[int, StoredSample] = {}
        self.latent_shape = (entries[0].latent_shape[0], *size)

    @property
    def sha256(self) -> str:
        rows = [(entry.key, entry.domain) for entry in self.entries]
        return hashlib.sha256(f"{self.size} {rows} {self._task}".encode()).hexdigest()

    @property
    def num_scans(self) -> dict[str, int]:
        return dict(Counter({entry.scan: entry.domain for entry in self.entries}.values()))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """0 and 1: examples hold standardised latents."""
        channels = self.latent_shape[0]
        return torch.zeros(channels), torch.ones(channels)

    def choose(self, step: int, count: int) -> list[LabelledChoice]:
        return [self._choose(row_seed(self.seed, step, row)) for row in range(count)]

    def read(self, choices: Sequence[LabelledChoice]) -> dict[str, Tensor]:
        rows = [self._read(choice) for choice in choices]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def example(self, number: int) -> StoredSample:
        """The example of an entry, opened once in each process."""
        if number not in self._opened:
            self._opened[number] = self.entries[number].open()
        return self._opened[number]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: each process that reads opens its own."""
        return self.__dict__ | {"_opened": {}}

    def _choose(self, seed: int) -> LabelledChoice:
        generator = generator_of(seed, Purpose.choosing)
        number, around = choose_example([entry.classes for entry in self.entries], generator)
        entry = self.entries[number]
        return LabelledChoice(
            domain=self.domains.index(entry.domain),
            seed=seed,
            sample=entry.key,
            example=number,
            crop=draw_crop(self.example(number), around, self.size, self.stride, generator),
        )

    def _read(self, choice: LabelledChoice) -> dict[str, Tensor]:
        example = self.example(choice.example)
        noise = choice.generator(Purpose.reading)
        return read_crop(example, choice.crop, self.size, self.stride, noise) | {
            "domain": torch.tensor(choice.domain)
        }


def num_poses(num_scans: int) -> int:
    """In how many poses each of so many scans is encoded, its own included."""
    return max(1, min(MOST_POSES, EXAMPLES_AIMED_AT // num_scans))

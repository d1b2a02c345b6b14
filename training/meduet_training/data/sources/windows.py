"""Latent windows as a pretraining draws them: domains alike, each window with its truth and its reference."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from meduet_training.data.caches.latent_windows import LatentWindows
from meduet_training.data.sources.protocol import Choice, Purpose, generator_of, row_seed
from meduet_training.data.sources.sampling import balanced, one_of, rows_by
from meduet_training.data.sources.validation_crops import ValidationCrops, window_crops
from napari_meduet.core.standardisation import LatentStandardisation

ALIGNED_SEQUENCES = 0.8  # where a session has other sequences, how often one of them is the target
REGISTERED_SHARE = 0.5  # of a batch comes from sessions with several sequences, where the cohort has any


@dataclass(frozen=True, kw_only=True)
class WindowChoice(Choice):
    """Rows of the windows: one volume, its truth, and another volume in the truth's style."""

    window: int
    target: int
    reference: int


class WindowSource:
    """Draws from latent windows that lie in memory (`source.BatchSource`)."""

    def __init__(self, windows: LatentWindows, seed: int) -> None:
        self.windows, self.seed = windows, seed
        self.domains, self.sha256 = windows.domains, windows.sha256
        channels, x, y, z = windows.mean.shape[1:]
        self.latent_shape = (channels, x, y, z)
        self._mean, self._std = windows.statistics()
        self._anatomy, self._appearance = windows.anatomy.tolist(), windows.appearance.tolist()
        self._scan, self._domain = windows.scan.tolist(), windows.domain.tolist()
        self._by_domain = rows_by(windows.domain)
        self._registered = _registered(windows)
        self._by_anatomy = rows_by(windows.anatomy)
        self._by_appearance = rows_by(windows.appearance)

    @property
    def num_scans(self) -> dict[str, int]:
        """How many scans each domain has."""
        pairs = set(zip(self._domain, self._scan, strict=True))
        return {name: sum(of == number for of, _ in pairs) for number, name in enumerate(self.domains)}

    def statistics(self) -> tuple[Tensor, Tensor]:
        return self._mean, self._std

    def validation_crops(self, count: int, seed: int) -> ValidationCrops:
        return window_crops(self.windows, count, seed)

    def choose(self, step: int, count: int) -> list[WindowChoice]:
        """`count` windows: a share of registered ones, the others from domains drawn at random.

        Domain -1, nobody's, counts as a domain.
        """
        return [self._choose(row_seed(self.seed, step, row)) for row in range(count)]

    def read(self, choices: Sequence[WindowChoice]) -> dict[str, Tensor]:
        windows = [choice.window for choice in choices]
        references = [choice.reference for choice in choices]
        noise = [choice.generator(Purpose.reading) for choice in choices]
        return {
            "latent": self._latents(windows, noise),
            "domain": self.windows.domain[windows],
            "aligned_target": self._latents([choice.target for choice in choices], noise),
            "style_reference": self._latents(references, noise),
            "coverage": self.windows.coverage[windows],
            "style_reference_coverage": self.windows.coverage[references],
        }

    def _choose(self, seed: int) -> WindowChoice:
        generator = generator_of(seed, Purpose.choosing)
        window = self._window(generator)
        target = self._other_appearance(window, generator)
        return WindowChoice(
            domain=self._domain[window],
            seed=seed,
            sample=hashlib.sha256(f"{self.sha256} {self._scan[window]}".encode()).hexdigest()[:16],
            window=window,
            target=target,
            reference=self._other_anatomy(target, generator),
        )

    def _window(self, generator: Generator) -> int:
        if self._registered and float(torch.rand((), generator=generator)) < REGISTERED_SHARE:
            return one_of(self._registered, generator)
        return balanced(self._by_domain, generator)

    def _other_appearance(self, window: int, generator: Generator) -> int:
        """The same anatomy in another style, where the cohort has one."""
        others = [other for other in self._by_anatomy[self._anatomy[window]] if other != window]
        sequences = [o for o in others if self._scan[o] != self._scan[window] and self._domain[o] >= 0]
        if sequences and float(torch.rand((), generator=generator)) < ALIGNED_SEQUENCES:
            others = sequences
        return one_of(others or [window], generator)

    def _other_anatomy(self, window: int, generator: Generator) -> int:
        """The same style on another anatomy, where the cohort has one."""
        others = self._by_appearance[self._appearance[window]]
        elsewhere = [other for other in others if self._anatomy[other] != self._anatomy[window]]
        return one_of(elsewhere or others, generator)

    def _latents(self, windows: list[int], noise: list[Generator]) -> Tensor:
        """A fresh latent from each window's mean and variance (C-32), standardised."""
        mean = self.windows.mean[windows].float()
        spread = (0.5 * self.windows.log_variance[windows].float()).exp()
        drawn = mean + spread * torch.stack([torch.randn(mean.shape[1:], generator=g) for g in noise])
        return LatentStandardisation.of_channels(self._mean, self._std).standardised(drawn)


def _registered(windows: LatentWindows) -> list[int]:
    """Windows as they were scanned whose anatomy another sequence shows too."""
    anatomies, scanners = windows.anatomy.tolist(), windows.scanner.tolist()
    sequences: dict[int, set[int]] = {}
    for anatomy, scan in zip(anatomies, windows.scan.tolist(), strict=True):
        sequences.setdefault(anatomy, set()).add(scan)
    return [
        row
        for row, (anatomy, scanner) in enumerate(zip(anatomies, scanners, strict=True))
        if len(sequences[anatomy]) > 1 and scanner == 0
    ]

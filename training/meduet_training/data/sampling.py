"""Batches for the pretraining: balanced over domains (C-12), each window with its truth and its reference."""

import torch
from torch import Generator, Tensor

from meduet_training.data.latent_windows import LatentWindows
from napari_meduet.core.objective import Batch

ALIGNED_SEQUENCES = 0.8  # where a session has other sequences, how often one of them is the target
REGISTERED_SHARE = 0.5  # of a batch comes from sessions with several sequences, where the cohort has any


class WindowSampler:
    """Draws the batch of a step; the same step always gives the same batch.

    Args:
        latent_mean, latent_std: (C,), by which latents are standardised.
    """

    def __init__(
        self, windows: LatentWindows, latent_mean: Tensor, latent_std: Tensor, device: torch.device, seed: int
    ) -> None:
        self.windows, self.device, self.seed = windows, device, seed
        self.shift = latent_mean.view(1, -1, 1, 1, 1).to(device)
        self.scale = latent_std.view(1, -1, 1, 1, 1).to(device)
        self.anatomy, self.appearance = windows.anatomy.tolist(), windows.appearance.tolist()
        self.scan, self.domain = windows.scan.tolist(), windows.domain.tolist()
        self.by_domain = _rows_of(windows.domain)
        self.registered = _registered(windows)
        self.by_anatomy = _rows_of(windows.anatomy)
        self.by_appearance = _rows_of(windows.appearance)

    def draw(self, step: int, count: int) -> Batch:
        """`count` windows: a share of registered ones, the others from domains drawn at random.

        Domain -1, nobody's, counts as a domain.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        chosen = [self._row(generator) for _ in range(count)]
        targets = [self._other_appearance(row, generator) for row in chosen]
        references = [self._other_anatomy(row, generator) for row in targets]
        return {
            "latent": self._latents(chosen, generator),
            "domain": self.windows.domain[chosen].to(self.device),
            "aligned_target": self._latents(targets, generator),
            "style_reference": self._latents(references, generator),
            "coverage": self.windows.coverage[chosen].to(self.device),
            "style_reference_coverage": self.windows.coverage[references].to(self.device),
        }

    def _row(self, generator: Generator) -> int:
        if self.registered and float(torch.rand((), generator=generator)) < REGISTERED_SHARE:
            return _one_of(self.registered, generator)
        return _one_of(self.by_domain[_one_of(list(self.by_domain), generator)], generator)

    def _other_appearance(self, row: int, generator: Generator) -> int:
        """The same anatomy in another style, where the cohort has one."""
        others = [other for other in self.by_anatomy[self.anatomy[row]] if other != row]
        sequences = [o for o in others if self.scan[o] != self.scan[row] and self.domain[o] >= 0]
        if sequences and float(torch.rand((), generator=generator)) < ALIGNED_SEQUENCES:
            others = sequences
        return _one_of(others or [row], generator)

    def _other_anatomy(self, row: int, generator: Generator) -> int:
        """The same style on another anatomy, where the cohort has one."""
        others = self.by_appearance[self.appearance[row]]
        elsewhere = [other for other in others if self.anatomy[other] != self.anatomy[row]]
        return _one_of(elsewhere or others, generator)

    def _latents(self, rows: list[int], generator: Generator) -> Tensor:
        mean = self.windows.mean[rows].float()
        spread = (0.5 * self.windows.log_variance[rows].float()).exp()
        drawn = mean + spread * torch.randn(mean.shape, generator=generator)
        return (drawn.to(self.device) - self.shift) / self.scale


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


def _rows_of(labels: Tensor) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        rows.setdefault(label, []).append(row)
    return rows


def _one_of(choices: list[int], generator: Generator) -> int:
    return choices[int(torch.randint(len(choices), (), generator=generator))]

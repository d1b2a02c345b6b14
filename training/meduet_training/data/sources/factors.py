"""Crops of latents with their factors, as the training of a generator draws them (`source.BatchSource`).

Domains alike, crops along tokens with enough body in them; pooled factors are those of the crop or, for half
of the rows, of the whole scan, because a user gives a whole scan.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.data.sources.protocol import Choice, Purpose, generator_of, row_seed
from meduet_training.data.sources.sampling import balanced, rows_by
from napari_meduet.core.factors import pooled_factor

BODY_SHARE = 0.4  # of a crop at least, where the scan allows it
PLACES_TRIED = 8
WHOLE_SCAN_SHARE = 0.5  # of the rows are conditioned on the factors of the whole scan


@dataclass(frozen=True, kw_only=True)
class FactorChoice(Choice):
    """A row that shows a crop of one scan."""

    scan: int
    corner: tuple[int, int, int]  # in tokens
    shows_whole_scan: bool


class FactorSource:
    """Draws from scans whose latents and factors were computed before.

    Args:
        size: tokens along a crop.
    """

    def __init__(self, entries: Sequence[FactorEntry], size: tuple[int, int, int], seed: int) -> None:
        self.entries, self.size, self.seed = entries, size, seed
        self.domains = tuple(sorted({entry.domain for entry in entries}))
        self._domain = [self.domains.index(entry.domain) for entry in entries]
        self._by_domain = rows_by(torch.tensor(self._domain))
        first = entries[0].read((0, 0, 0), size)["mean"]
        channels, x, y, z = first.shape
        self.latent_shape = (channels, x, y, z)

    @property
    def sha256(self) -> str:
        rows = [(entry.key, entry.domain) for entry in self.entries]
        return hashlib.sha256(f"{self.size} {rows}".encode()).hexdigest()

    @property
    def num_scans(self) -> dict[str, int]:
        return dict(Counter(entry.domain for entry in self.entries))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """0 and 1: the cache holds standardised latents."""
        channels = self.latent_shape[0]
        return torch.zeros(channels), torch.ones(channels)

    def choose(self, step: int, count: int) -> list[FactorChoice]:
        return [self._choose(row_seed(self.seed, step, row)) for row in range(count)]

    def read(self, choices: Sequence[FactorChoice]) -> dict[str, Tensor]:
        rows = [self._read(choice) for choice in choices]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def factors(self, choices: Sequence[FactorChoice]) -> dict[str, Tensor]:
        """Only the pooled `content` and `style` of what `read` returns."""
        rows = []
        for choice in choices:
            entry = self.entries[choice.scan]
            rows.append(_pooled(entry, choice, entry.read(choice.corner, self.size)))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _choose(self, seed: int) -> FactorChoice:
        generator = generator_of(seed, Purpose.choosing)
        scan = balanced(self._by_domain, generator)
        return FactorChoice(
            domain=self._domain[scan],
            seed=seed,
            sample=self.entries[scan].key,
            scan=scan,
            corner=corner_with_body(self.entries[scan], self.size, generator),
            shows_whole_scan=float(torch.rand((), generator=generator)) < WHOLE_SCAN_SHARE,
        )

    def _read(self, choice: FactorChoice) -> dict[str, Tensor]:
        entry = self.entries[choice.scan]
        crop = entry.read(choice.corner, self.size)
        noise = torch.randn(crop["mean"].shape, generator=choice.generator(Purpose.reading))
        return {
            "latent": crop["mean"] + (0.5 * crop["log_variance"]).exp() * noise,
            **_pooled(entry, choice, crop),
            "spatial_content": crop["content"].flatten(0, 2),
            "domain": torch.tensor(choice.domain),
        }


def _pooled(entry: FactorEntry, choice: FactorChoice, crop: dict[str, Tensor]) -> dict[str, Tensor]:
    """c0 and s0 of the crop, or of the whole scan where the choice says so."""
    if choice.shows_whole_scan:
        return {"content": entry.content, "style": entry.style}
    coverage = crop["coverage"].flatten()
    return {name: pooled_factor(crop[name].flatten(0, 2), coverage) for name in ("content", "style")}


def corner_with_body(
    entry: FactorEntry, size: tuple[int, int, int], generator: torch.Generator
) -> tuple[int, int, int]:
    """Where a crop begins, in tokens: the first place tried with enough body, or else the best of them."""
    best, most = (0, 0, 0), -1.0
    for _ in range(PLACES_TRIED):
        x, y, z = (
            int(torch.randint(length - width + 1, (), generator=generator))
            for length, width in zip(entry.grid, size, strict=True)
        )
        dx, dy, dz = size
        share = float(entry.coverage[x : x + dx, y : y + dy, z : z + dz].mean())
        if share > most:
            best, most = (x, y, z), share
        if most >= BODY_SHARE:
            break
    return best

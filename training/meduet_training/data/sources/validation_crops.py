"""The crops that show how a run is doing: the same few hundred from its first step to its last.

A source that knows held-out scans gives theirs. Latent windows hold none, so what is shown of them is how
well the run knows what it learns from; the note of the crops says which.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from meduet_training.data.caches.latent_windows import LatentWindows
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.volumes.intensity import CT_FULL, IntensityProfile
from napari_meduet.volumes.volume import Modality


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidationCrops:
    """N crops with what is known of them.

    Attributes:
        latent: posterior means (C-32), standardised as the network reads them; axes in RAS+ order.
        coverage: share of body in each token.
        domains: the name of each crop's domain.
        patients: a hash each; crops of one patient share it.
        modalities: None where the source does not know.
        note: a sentence for captions: where the crops come from, and what that means for the figures.
        ct_profile: the HU of the tokenizer's units.
    """

    latent: Float[Tensor, "N C X Y Z"]
    coverage: Float[Tensor, "N L"]
    domains: tuple[str, ...]
    patients: tuple[str, ...]
    modalities: tuple[Modality | None, ...]
    note: str
    ct_profile: IntensityProfile = CT_FULL

    def __len__(self) -> int:
        return len(self.domains)

    def counts(self) -> dict[str, int]:
        """Crops of each domain."""
        return dict(sorted(Counter(self.domains).items()))


@runtime_checkable
class ValidationSource(Protocol):
    """What a source of training data offers beside it, if it can."""

    def validation_crops(self, count: int, seed: int) -> ValidationCrops:
        """At most `count` crops, as many of each domain as there are; the same for the same seed."""
        ...


WINDOWS_NOTE = (
    "Windows that the run learns from, turned and mirrored as they are in training; windows of one scan, and "
    "of scans registered to it, stay together in the probes."
)


def window_crops(windows: LatentWindows, count: int, seed: int) -> ValidationCrops:
    """Windows as they were scanned, evenly over the domains."""
    standardisation = LatentStandardisation.of_channels(*windows.statistics())
    names = [windows.domains[domain] for domain in windows.domain.tolist()]
    real = [row for row, scanner in enumerate(windows.scanner.tolist()) if scanner == 0]
    chosen = evenly([names[row] for row in real], count, seed)
    rows = [real[number] for number in chosen]
    groups = _registered_scans(windows)
    return ValidationCrops(
        latent=standardisation.standardised(windows.mean[rows].float()),
        coverage=windows.coverage[rows],
        domains=tuple(names[row] for row in rows),
        patients=tuple(f"scan {groups[int(windows.scan[row])]}" for row in rows),
        modalities=tuple(_modality(names[row]) for row in rows),
        note=WINDOWS_NOTE,
        ct_profile=windows.ct_profile,
    )


def evenly(domains: list[str], count: int, seed: int) -> list[int]:
    """Numbers of at most `count` samples, drawn in turns from each domain until it has no more."""
    order = torch.randperm(len(domains), generator=torch.Generator().manual_seed(seed)).tolist()
    turns: dict[str, int] = {}
    ranked = []
    for number in order:
        turn = turns.get(domains[number], 0)
        turns[domains[number]] = turn + 1
        ranked.append((turn, number))
    return sorted(number for _, number in sorted(ranked)[:count])


def _registered_scans(windows: LatentWindows) -> dict[int, int]:
    """For each scan the first of those that show the same anatomies."""
    first: dict[int, int] = {}
    pairs = sorted(set(zip(windows.anatomy.tolist(), windows.scan.tolist(), strict=True)))
    return {scan: first.setdefault(anatomy, scan) for anatomy, scan in pairs}


def _modality(domain: str) -> Modality | None:
    """Domains of the shared data begin with their modality."""
    known: dict[str, Modality] = {"ct": "CT", "mr": "MR"}
    return known.get(domain.split("-")[0].lower())

"""Samples that probes learn from: factors of sub-volumes, and features of the same images beside them.

A scanner is told from the person in it only where one anatomy is seen by several scanners. Real domains here
have one patient each, so the anatomies of the cohort are also seen through the simulated scanners of
`data/scanners.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from meduet_training.data.augmentation.scanners import CT_SCANNERS, MR_SCANNERS, Scanner, see_through
from meduet_training.data.caches.prepared import prepare_scan
from meduet_training.data.cohort.scan import read_scan
from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.image_domain_classifier import features
from napari_meduet.core.factors import pooled_factor
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import encode_scan
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.volumes.preparation import WORKING_SPACING_MM
from napari_meduet.volumes.volume import UNITS, Volume

BODY_SHARE = 0.15  # of a sub-volume at least, as in the training
CROP = 144  # voxels of the working grid: eight sub-volumes of the middle of the body are enough of a scan


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """One row for each sub-volume.

    Attributes:
        features: (N, D).
        domains, patients, splits: (N,) words.
    """

    features: np.ndarray
    domains: np.ndarray
    patients: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, scan: Scan, domain: str, features: np.ndarray) -> "Samples":
        """Rows of one look of one scan."""
        domains, patients, splits = (
            np.full(len(features), word, object) for word in (domain, scan.patient, scan.split)
        )
        return cls(features=features, domains=domains, patients=patients, splits=splits)

    @classmethod
    def joined(cls, parts: list["Samples"]) -> "Samples":
        """All rows."""
        names = ("features", "domains", "patients", "splits")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def real_samples(model: Model, scans: list[Scan]) -> tuple[Samples, Samples]:
    """Style and content of scans as they are; the domain is the scanner or site."""
    styles, contents = [], []
    for scan in scans:
        content, style, share = _factors(model, read_scan(scan))
        chosen = share >= BODY_SHARE
        styles.append(Samples.of(scan, scan.domain, style[chosen]))
        contents.append(Samples.of(scan, scan.domain, content[chosen]))
    return Samples.joined(styles), Samples.joined(contents)


def simulated_samples(model: Model, scans: list[Scan], seed: int) -> tuple[Samples, Samples, Samples]:
    """Style, content and image features of scans through every simulated scanner; the domain is the scanner.

    All looks of one scan give the same sub-volumes, chosen in the scan as it is.
    """
    noise = torch.Generator().manual_seed(seed)
    styles, contents, images = [], [], []
    for scan in scans:
        chosen = None
        for domain, volume in _looks(scan, noise):
            content, style, share = _factors(model, volume)
            chosen = share >= BODY_SHARE if chosen is None else chosen
            styles.append(Samples.of(scan, domain, style[chosen]))
            contents.append(Samples.of(scan, domain, content[chosen]))
            images.append(Samples.of(scan, domain, features(volume.voxels, volume.modality)))
    return Samples.joined(styles), Samples.joined(contents), Samples.joined(images)


def _looks(scan: Scan, noise: torch.Generator) -> Iterator[tuple[str, Volume]]:
    """The middle of a scan on the working grid, as it is and through each listed scanner."""
    prepared = prepare_scan(scan)
    modality = "CT" if scan.modality == "CT" else "MR"
    centre = [int(np.median(places)) for places in np.nonzero(prepared.body)]
    sides = prepared.values.shape
    starts = [max(0, min(at - CROP // 2, side - CROP)) for at, side in zip(centre, sides, strict=True)]
    middle = prepared.values[tuple(slice(start, start + CROP) for start in starts)]
    values = torch.from_numpy(middle.astype(np.float32))[None]
    affine = np.diag([*[WORKING_SPACING_MM] * 3, 1.0])
    for number, scanner in enumerate((Scanner(), *(CT_SCANNERS if modality == "CT" else MR_SCANNERS))):
        seen = see_through(values, [scanner], modality, noise)[0].numpy()
        volume = Volume(
            voxels=seen, affine=affine, modality=modality, unit=UNITS[modality], sha256=prepared.sha256
        )
        yield f"scanner {number}", volume


@torch.inference_mode()
def _factors(model: Model, volume: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Content, style and share of body of each sub-volume."""
    encoded = encode_scan(model, volume, null_progress)
    content, style = (pooled_factor(tokens, encoded.coverage) for tokens in (encoded.content, encoded.style))
    return content.numpy(), style.numpy(), encoded.coverage.mean(dim=1).numpy()

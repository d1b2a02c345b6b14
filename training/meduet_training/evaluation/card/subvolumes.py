"""Samples for the domain probes: factors of sub-volumes, and features of the same images.

A probe can separate the scanner from the patient only if several scanners see the same anatomy. Most real
domains of the cohort have one patient each, so the scans are also passed through the simulated scanners of
data/augmentation/scanners.py. domain_probe.py beside this file computes the metrics.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from meduet_training.data.augmentation.scanners import CT_SCANNERS, MR_SCANNERS, Scanner, see_through
from meduet_training.data.caches.prepared import prepare_scan
from meduet_training.data.cohort.scan import read_scan
from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.image_domain_classifier import image_features
from napari_meduet.core.factors import pooled_factor
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import encode_scan
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.volumes.preparation import WORKING_SPACING_MM
from napari_meduet.volumes.volume import UNITS, Volume

MIN_BODY_FRACTION = 0.15  # of a sub-volume, as in the training
CROP = 144  # voxels of the working grid, for eight sub-volumes in the middle of the body


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """N samples, one row for each sub-volume.

    Attributes:
        features: (N, D).
        domains, patients, splits: (N,), strings.
    """

    features: np.ndarray
    domains: np.ndarray
    patients: np.ndarray
    splits: np.ndarray

    @classmethod
    def from_scan(cls, scan: Scan, domain: str, features: np.ndarray) -> "Samples":
        """Return the samples of one scan, as one scanner sees it."""
        domains, patients, splits = (
            np.full(len(features), value, object) for value in (domain, scan.patient, scan.split)
        )
        return cls(features=features, domains=domains, patients=patients, splits=splits)

    @classmethod
    def concatenated(cls, parts: list["Samples"]) -> "Samples":
        """Return all rows of several sets of samples."""
        names = ("features", "domains", "patients", "splits")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def real_samples(model: Model, scans: list[Scan]) -> tuple[Samples, Samples]:
    """Return styles and contents of real scans; the domain is the scanner or the site."""
    styles, contents = [], []
    for scan in scans:
        content, style, body = _factors(model, read_scan(scan))
        chosen = body >= MIN_BODY_FRACTION
        styles.append(Samples.from_scan(scan, scan.domain, style[chosen]))
        contents.append(Samples.from_scan(scan, scan.domain, content[chosen]))
    return Samples.concatenated(styles), Samples.concatenated(contents)


def simulated_samples(model: Model, scans: list[Scan], seed: int) -> tuple[Samples, Samples, Samples]:
    """Return styles, contents and image features of scans through every simulated scanner.

    The domain is the scanner. All scanners see the same sub-volumes of a scan, chosen in the original scan.
    """
    noise = torch.Generator().manual_seed(seed)
    styles, contents, images = [], [], []
    for scan in scans:
        chosen = None
        for domain, volume in _scanner_views(scan, noise):
            content, style, body = _factors(model, volume)
            chosen = body >= MIN_BODY_FRACTION if chosen is None else chosen
            styles.append(Samples.from_scan(scan, domain, style[chosen]))
            contents.append(Samples.from_scan(scan, domain, content[chosen]))
            images.append(Samples.from_scan(scan, domain, image_features(volume.voxels, volume.modality)))
    return Samples.concatenated(styles), Samples.concatenated(contents), Samples.concatenated(images)


def _scanner_views(scan: Scan, noise: torch.Generator) -> Iterator[tuple[str, Volume]]:
    """Yield the middle of a scan on the working grid: the original, and through each simulated scanner."""
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
    """Return content, style and body fraction of each sub-volume."""
    encoded = encode_scan(model, volume, null_progress)
    content, style = (pooled_factor(tokens, encoded.coverage) for tokens in (encoded.content, encoded.style))
    return content.numpy(), style.numpy(), encoded.coverage.mean(dim=1).numpy()

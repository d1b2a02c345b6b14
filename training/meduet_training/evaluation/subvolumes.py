"""Factors of sub-volumes: the samples that probes learn from.

A scanner is told from the person in it only where one anatomy is seen by several scanners. Real domains
here have one patient each, so the anatomies of the cohort are also seen through the simulated scanners of
`data/scanners.py`.
"""

from dataclasses import dataclass

import numpy as np
import torch

from meduet_training.data.cohort import Scan
from meduet_training.data.prepared import prepare_scan
from meduet_training.data.scanners import CT_SCANNERS, MR_SCANNERS, Scanner, see_through
from napari_meduet.core.factors import pooled_factor
from napari_meduet.models.files import Model
from napari_meduet.pipelines.encoding import encode_scan
from napari_meduet.pipelines.progress import silent
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.preparation import WORKING_SPACING_MM
from napari_meduet.volumes.volume import UNITS, Volume

BODY_SHARE = 0.15  # of a sub-volume at least, as in the training


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """One row for each sub-volume.

    Attributes:
        content, style: (N, Dc) and (N, Ds), pooled over the sub-volume's tokens.
        domains, patients: (N,) words.
    """

    content: np.ndarray
    style: np.ndarray
    domains: np.ndarray
    patients: np.ndarray


def real_samples(model: Model, scans: list[Scan]) -> Samples:
    """Sub-volumes of scans as they are; the domain is the scanner or site."""
    found = []
    for scan in scans:
        content, style, share = _factors(model, read_volume(scan.path, modality=scan.modality))
        found.append(_samples(content, style, share >= BODY_SHARE, scan.domain, scan.patient))
    return _joined(found)


def simulated_samples(model: Model, scans: list[Scan], seed: int) -> Samples:
    """Sub-volumes of scans as they are and through each listed scanner; the domain is the scanner.

    All looks of one scan give the same sub-volumes, chosen in the scan as it is.
    """
    noise = torch.Generator().manual_seed(seed)
    found = []
    for scan in scans:
        prepared = prepare_scan(scan)
        values = torch.from_numpy(prepared.values.astype(np.float32))[None]
        chosen = None
        for number, scanner in enumerate(
            (Scanner(), *(CT_SCANNERS if scan.modality == "CT" else MR_SCANNERS))
        ):
            seen = see_through(values, [scanner], scan.modality, noise)[0].numpy()
            content, style, share = _factors(model, _as_volume(seen, scan, prepared.sha256))
            chosen = share >= BODY_SHARE if chosen is None else chosen
            found.append(_samples(content, style, chosen, f"scanner {number}", scan.patient))
    return _joined(found)


def _as_volume(values: np.ndarray, scan: Scan, sha256: str) -> Volume:
    modality = "CT" if scan.modality == "CT" else "MR"
    affine = np.diag([*[WORKING_SPACING_MM] * 3, 1.0])
    return Volume(voxels=values, affine=affine, modality=modality, unit=UNITS[modality], sha256=sha256)


@torch.inference_mode()
def _factors(model: Model, volume: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Content, style and share of body of each sub-volume."""
    encoded = encode_scan(model, volume, silent)
    content, style = (pooled_factor(tokens, encoded.coverage) for tokens in (encoded.content, encoded.style))
    return content.numpy(), style.numpy(), encoded.coverage.mean(dim=1).numpy()


def _samples(
    content: np.ndarray, style: np.ndarray, chosen: np.ndarray, domain: str, patient: str
) -> Samples:
    count = int(chosen.sum())
    return Samples(
        content=content[chosen],
        style=style[chosen],
        domains=np.full(count, domain, object),
        patients=np.full(count, patient, object),
    )


def _joined(parts: list[Samples]) -> Samples:
    names = ("content", "style", "domains", "patients")
    return Samples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

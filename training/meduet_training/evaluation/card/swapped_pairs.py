"""Swaps of unseen scans with the styles of the train split: what each changed, and what it should not have.

A content scan is measured once and rendered in many styles; a style is measured once and kept without its
scan. What the numbers amount to is `swaps.py`'s business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.image_domain_classifier import DomainClassifier, features
from meduet_training.evaluation.metrics.masks import overlaps, shown_in
from meduet_training.evaluation.metrics.noise import soft_tissue_noise
from meduet_training.evaluation.sections import case_name
from napari_meduet.models.model import Model
from napari_meduet.models.styles import Style
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.pipelines.factors import measure_scan
from napari_meduet.pipelines.requests import ScanChoice, SwapRequest
from napari_meduet.pipelines.style_swap.session import SwapSession, open_swap
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleScan:
    """A scan as a style: all that a swap and its judgement need of it.

    Attributes:
        noise: in soft tissue, HU; None for MR.
        image: the classifier's features.
    """

    scan: Scan
    style: Style
    noise: float | None
    image: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SwappedPair:
    """What one swap at strength 1 did.

    Attributes:
        moved: change of the image classifier's log-odds for the style's domain; None where the scan has no
            tissue to judge by.
        gradients: correlation of gradient sizes in the body, smoothed by 1.5 mm, as the safety report has it.
        native_gradients: the same in the scan's own planes, unsmoothed.
        masks: those that the content shows.
        overlaps, smooth_overlaps: Dice of the thresholded masks before and after, as they are and of scans
            smoothed by 1.5 mm.
        noises: of content, style and result in HU; None for MR.
    """

    content: Scan
    style: Scan
    moved: float | None
    gradients: float
    native_gradients: float
    masks: list[str]
    overlaps: dict[str, float]
    smooth_overlaps: dict[str, float]
    noises: tuple[float, float, float] | None
    verdict: str


def measured_style(model: Model, scan: Scan) -> StyleScan:
    """Style, noise and features of a scan."""
    volume = read_volume(scan.path, modality=scan.modality)
    measured = measure_scan(model, volume, null_progress)
    prepared = measured.encoded.prepared
    return StyleScan(
        scan=scan,
        style=measured.style,
        noise=soft_tissue_noise(volume) if scan.modality == "CT" else None,
        image=features(prepared.grid.to_working(prepared.values), volume.modality),
    )


def chosen_pairs(
    contents: Sequence[Scan], styles: Sequence[Scan], count: int, seed: int
) -> list[tuple[Scan, Scan]]:
    """Pairs of different domains and one body region for MR, drawn evenly over the contents.

    An MR style of another region would ask for the contrast of tissues that the content does not have.
    """
    rng = np.random.default_rng(seed)
    rounds: list[list[tuple[Scan, Scan]]] = []
    for content in contents:
        fitting = [style for style in styles if style.domain != content.domain and _fit(content, style)]
        rounds.append([(content, fitting[k]) for k in rng.permutation(len(fitting))])
    evenly = [row[turn] for turn in range(len(styles)) for row in rounds if turn < len(row)]
    return sorted(evenly[:count], key=lambda pair: (case_name(pair[0]), case_name(pair[1])))


def _fit(content: Scan, style: Scan) -> bool:
    """One modality, and for MR one region: the first words of a domain's name."""
    if content.modality == "CT":
        return style.modality == "CT"
    return content.domain.split("-")[:2] == style.domain.split("-")[:2]


def open_content(scan: Scan, model: Path, device: str) -> SwapSession:
    """A session in which a scan has its own style, until another one is put in."""
    choice = ScanChoice(modality=scan.modality)
    request = SwapRequest(
        scan.path, scan.path, model=model, device=device, content_choice=choice, style_choice=choice
    )
    return open_swap(request)


def swapped_pairs(
    session: SwapSession, content: Scan, styles: Sequence[StyleScan], classifier: DomainClassifier | None
) -> Iterator[tuple[SwappedPair, Volume]]:
    """Each style on one content, and the volume that came out.

    Args:
        classifier: None: what moved in the eyes of a classifier is not asked.
    """
    prepared = session.measured.encoded.prepared
    before, modality = prepared.values, prepared.volume.modality
    body, masks = body_mask(before, modality), shown_in(prepared.volume)
    image = features(prepared.grid.to_working(before), modality) if classifier else None
    noise = soft_tissue_noise(prepared.volume) if modality == "CT" else None
    for style in styles:
        result = replace(session, style=style.style).render(1.0)
        after = result.volume.values()
        moved = None
        if classifier is not None and image is not None and len(image):
            other = features(prepared.grid.to_working(after), modality)
            domain = style.scan.domain
            moved = (
                classifier.log_odds(other, domain) - classifier.log_odds(image, domain)
                if len(other)
                else None
            )
        noises = None
        if noise is not None and style.noise is not None:
            noises = (noise, style.noise, soft_tissue_noise(result.volume))
        pair = SwappedPair(
            content=content,
            style=style.scan,
            moved=moved,
            gradients=result.report.measurements.gradient_correlation,
            native_gradients=gradient_size_correlation(before, after, body),
            masks=masks,
            overlaps=overlaps(prepared.volume, result.volume, smoothed=False),
            smooth_overlaps=overlaps(prepared.volume, result.volume, smoothed=True),
            noises=noises,
            verdict=result.report.verdict,
        )
        yield pair, result.volume


def gradient_size_correlation(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> float:
    """Pearson correlation of unsmoothed gradient sizes, per voxel, inside a mask."""
    one, other = (
        np.sqrt(sum(np.square(step) for step in np.gradient(values)))[mask] for values in (before, after)
    )
    return float(np.corrcoef(one, other)[0, 1])

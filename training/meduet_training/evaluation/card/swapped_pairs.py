"""Swaps of test scans with the styles of the train split: the measurements of each pair.

A content scan is measured once and rendered in many styles. A style is measured once and kept without its
scan. swaps.py beside this file computes the metrics over all pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.image_domain_classifier import ImageDomainClassifier, image_features
from meduet_training.evaluation.metrics.masks import mask_dice, visible_masks
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
    """A style with the measurements of its scan.

    Attributes:
        noise: std in soft tissue in HU; None for MR.
        image: features of the image-domain classifier.
    """

    scan: Scan
    style: Style
    noise: float | None
    image: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SwappedPair:
    """Measurements of one swap at strength 1.

    Attributes:
        log_odds_change: change of the log-odds of the style's domain, by the image-domain classifier; None
            where the scan has too little tissue.
        gradients: correlation of gradient magnitudes in the body, smoothed by 1.5 mm, as in the safety
            report.
        native_gradients: the same correlation without smoothing, on the grid of the scan.
        masks: names of the masks that are large enough in the content.
        mask_dice, smooth_mask_dice: Dice of the masks before and after the swap, without and with smoothing
            by 1.5 mm.
        noise: noise of content, style and result in HU; None for MR.
    """

    content: Scan
    style: Scan
    log_odds_change: float | None
    gradients: float
    native_gradients: float
    masks: list[str]
    mask_dice: dict[str, float]
    smooth_mask_dice: dict[str, float]
    noise: tuple[float, float, float] | None
    verdict: str


def measure_style(model: Model, scan: Scan) -> StyleScan:
    """Measure style, noise and image features of a scan."""
    volume = read_volume(scan.path, modality=scan.modality)
    measured = measure_scan(model, volume, null_progress)
    prepared = measured.encoded.prepared
    return StyleScan(
        scan=scan,
        style=measured.style,
        noise=soft_tissue_noise(volume) if scan.modality == "CT" else None,
        image=image_features(prepared.grid.to_working(prepared.values), volume.modality),
    )


def choose_pairs(
    contents: Sequence[Scan], styles: Sequence[Scan], count: int, seed: int
) -> list[tuple[Scan, Scan]]:
    """Choose pairs of different domains, evenly over the contents.

    Pairs of MR scans have the same body region, because the style of another region holds the contrast of
    tissues that the content does not have.
    """
    rng = np.random.default_rng(seed)
    rounds: list[list[tuple[Scan, Scan]]] = []
    for content in contents:
        compatible = [
            style for style in styles if style.domain != content.domain and _is_compatible(content, style)
        ]
        rounds.append([(content, compatible[k]) for k in rng.permutation(len(compatible))])
    evenly = [row[k] for k in range(len(styles)) for row in rounds if k < len(row)]
    return sorted(evenly[:count], key=lambda pair: (case_name(pair[0]), case_name(pair[1])))


def _is_compatible(content: Scan, style: Scan) -> bool:
    """Return whether the modalities are equal, and for MR also the regions (the prefix of the domain)."""
    if content.modality == "CT":
        return style.modality == "CT"
    return content.domain.split("-")[:2] == style.domain.split("-")[:2]


def open_session(scan: Scan, model: Path, device: str) -> SwapSession:
    """Open a swap session whose style is that of the content scan itself."""
    choice = ScanChoice(modality=scan.modality)
    request = SwapRequest(
        scan.path, scan.path, model=model, device=device, content_choice=choice, style_choice=choice
    )
    return open_swap(request)


def swap_pairs(
    session: SwapSession, content: Scan, styles: Sequence[StyleScan], classifier: ImageDomainClassifier | None
) -> Iterator[tuple[SwappedPair, Volume]]:
    """Yield the measurements and the result of each style on one content scan.

    Args:
        classifier: None: the change of the log-odds is not measured.
    """
    prepared = session.measured.encoded.prepared
    before, modality = prepared.values, prepared.volume.modality
    body, masks = body_mask(before, modality), visible_masks(prepared.volume)
    image = image_features(prepared.grid.to_working(before), modality) if classifier else None
    content_noise = soft_tissue_noise(prepared.volume) if modality == "CT" else None
    for style in styles:
        result = replace(session, style=style.style).render(1.0)
        after = result.volume.values()
        log_odds_change = None
        if classifier is not None and image is not None and len(image):
            other = image_features(prepared.grid.to_working(after), modality)
            domain = style.scan.domain
            log_odds_change = (
                classifier.log_odds(other, domain) - classifier.log_odds(image, domain)
                if len(other)
                else None
            )
        noise = None
        if content_noise is not None and style.noise is not None:
            noise = (content_noise, style.noise, soft_tissue_noise(result.volume))
        pair = SwappedPair(
            content=content,
            style=style.scan,
            log_odds_change=log_odds_change,
            gradients=result.report.measurements.gradient_correlation,
            native_gradients=gradient_correlation(before, after, body),
            masks=masks,
            mask_dice=mask_dice(prepared.volume, result.volume, smoothed=False),
            smooth_mask_dice=mask_dice(prepared.volume, result.volume, smoothed=True),
            noise=noise,
            verdict=result.report.verdict,
        )
        yield pair, result.volume


def gradient_correlation(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> float:
    """Return the Pearson correlation of gradient magnitudes inside a mask, without smoothing."""
    one, other = (
        np.sqrt(sum(np.square(step) for step in np.gradient(values)))[mask] for values in (before, after)
    )
    return float(np.corrcoef(one, other)[0, 1])

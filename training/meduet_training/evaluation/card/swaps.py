"""Metrics of swaps: changes of the style and of the anatomy (specification, section 8)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.card.swapped_pairs import (
    StyleScan,
    SwappedPair,
    choose_pairs,
    measure_style,
    open_session,
    swap_pairs,
)
from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate
from meduet_training.evaluation.metrics.image_domain_classifier import ImageDomainClassifier
from meduet_training.evaluation.metrics.noise import MIN_NOISE_DIFFERENCE_HU, moved_fraction
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table, case_name
from napari_meduet.models.loading import load_model

NUM_PAIRS = 20  # for each modality
# Chest and abdomen scans of the train split with the largest difference in noise, swapped in both directions
NOISE_PAIRS = (("acrin013", "cmbcrc_01068"), ("crlm_1004", "c3l_00189"))
MASKS = {"CT": ("body", "lung", "bone"), "MR": ("body",)}
GOAL_TOWARDS, GOAL_GRADIENTS, GOAL_DICE, GOAL_NOISE = 0.70, 0.95, 0.95, 0.60
DESCRIPTION = (
    "Scans of the test split are swapped with the styles of scans of the train split, at strength 1 and "
    "with default options. Pairs are drawn evenly over the contents; MR pairs have one body region. The "
    "image-domain classifier is a logistic regression on hand-made image features of the train split "
    "(intensities, fine structure in flat tissue, gradients at borders) and is independent of the model. "
    "Noise is the robust std around a 3×3 in-plane mean inside tissue of 0 to 120 HU, eroded once, on the "
    "grid of each scan. The moved fraction is measured for pairs whose noise differs by more than 5 HU. "
    "The noise pairs within the train split are scans that the model was trained on. A change of the MR "
    "sequence always changes gradients, so its metrics have no goal. Masks are voxel thresholds (body > "
    "-300, lung < -400 inside the body, bone > 250 HU), which noise can cross. Masks with less than 1 % of "
    "the body have no Dice."
)


def swaps_section(
    model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int
) -> EvaluationSection:
    """Measure swaps of CT and of MR, and the noise of CT in both directions."""
    metrics: list[Metric] = []
    tables: list[Table] = []
    for modality in ("CT", "MR"):
        styles = [
            measure_style(load_model(model, device), scan) for scan in train if scan.modality == modality
        ]
        contents = [scan for scan in test if scan.modality == modality]
        classifier = ImageDomainClassifier.fit(
            [style.image for style in styles], [style.scan.domain for style in styles]
        )
        pairs = _swapped(model, contents, styles, classifier, device, seed)
        metrics += _pair_metrics(modality, pairs, seed)
        tables.append(_pair_table(modality, pairs))
        if modality == "CT":
            known = _noise_pairs(model, styles, device)
            metrics += _noise_metrics(pairs, known, seed)
            tables.append(_noise_table([*pairs, *known]))
    return EvaluationSection(
        title="Swaps", description=DESCRIPTION, metrics=tuple(metrics), tables=tuple(tables), seed=seed
    )


def _swapped(
    model: Path,
    contents: Sequence[Scan],
    styles: Sequence[StyleScan],
    classifier: ImageDomainClassifier,
    device: str,
    seed: int,
) -> list[SwappedPair]:
    chosen_pairs = choose_pairs(contents, [style.scan for style in styles], NUM_PAIRS, seed)
    swapped = []
    for content in contents:
        own_styles = [style for one, style in chosen_pairs if one is content]
        chosen = [style for style in styles if style.scan in own_styles]
        if chosen:
            session = open_session(content, model, device)
            swapped += [pair for pair, _ in swap_pairs(session, content, chosen, classifier)]
    return swapped


def _noise_pairs(model: Path, styles: Sequence[StyleScan], device: str) -> list[SwappedPair]:
    """Swap the noise pairs in both directions, if the cohort holds them."""
    by_name = {case_name(style.scan): style for style in styles}
    swapped = []
    for pair in NOISE_PAIRS:
        if all(name in by_name for name in pair):
            for content, style in (pair, pair[::-1]):
                scan = by_name[content].scan
                session = open_session(scan, model, device)
                swapped += [done for done, _ in swap_pairs(session, scan, [by_name[style]], None)]
    return swapped


def _pair_metrics(modality: str, pairs: Sequence[SwappedPair], seed: int) -> list[Metric]:
    """Return the means over pairs; MR has no goals."""
    is_ct = modality == "CT"

    def mean(values: Sequence[float], chosen: Sequence[SwappedPair] = pairs) -> Estimate:
        return mean_estimate(values, [pair.content.patient for pair in chosen], seed)

    measured = [pair for pair in pairs if pair.log_odds_change is not None]
    towards = mean([float(pair.log_odds_change > 0) for pair in measured], measured)  # type: ignore[operator]
    gradients = [pair.gradients for pair in pairs]
    native = [pair.native_gradients for pair in pairs]
    metrics = [
        Metric(
            name=f"{modality}: fraction of pairs whose log-odds move to the domain of the style",
            estimate=towards,
            at_least=GOAL_TOWARDS if is_ct else None,
        ),
        Metric(
            name=f"{modality}: gradient correlation, smoothed 1.5 mm",
            estimate=mean(gradients),
            at_least=GOAL_GRADIENTS if is_ct else None,
            comparison=f"lowest {min(gradients):.3f}; unsmoothed on the grid of the scan "
            f"{np.mean(native):.3f}, lowest {min(native):.3f}",
        ),
    ]
    for name in MASKS[modality]:
        shown = [pair for pair in pairs if name in pair.masks]
        if not shown:
            continue
        smooth = [pair.smooth_mask_dice[name] for pair in shown]
        metrics.append(
            Metric(
                name=f"{modality}: Dice of {name}",
                estimate=mean([pair.mask_dice[name] for pair in shown], shown),
                at_least=GOAL_DICE if is_ct else None,
                comparison=f"lowest {min(pair.mask_dice[name] for pair in shown):.3f}; "
                f"smoothed by 1.5 mm before the threshold {np.mean(smooth):.3f}, lowest {min(smooth):.3f}",
            )
        )
    return metrics


def _moved_fraction(pair: SwappedPair) -> float | None:
    """Return how far the noise moved towards the style; None where content and style have similar noise."""
    if pair.noise is None or abs(pair.noise[1] - pair.noise[0]) <= MIN_NOISE_DIFFERENCE_HU:
        return None
    return moved_fraction(*pair.noise)


def _noise_metrics(pairs: Sequence[SwappedPair], known: Sequence[SwappedPair], seed: int) -> list[Metric]:
    metrics = []
    for is_up, direction in ((True, "up"), (False, "down")):
        for chosen, where in ((pairs, "test contents"), (known, "within the train split")):
            moved = [(pair, part) for pair in chosen if (part := _moved_fraction(pair)) is not None]
            moved = [(pair, part) for pair, part in moved if (pair.noise[1] > pair.noise[0]) == is_up]  # type: ignore[index]
            if moved:
                fractions = [part for _, part in moved]
                num_reached = sum(part >= GOAL_NOISE for part in fractions)
                metrics.append(
                    Metric(
                        name=f"CT: noise {direction}, moved fraction, {where}",
                        estimate=mean_estimate(fractions, [pair.content.patient for pair, _ in moved], seed),
                        at_least=GOAL_NOISE,
                        comparison=f"{num_reached} of {len(fractions)} pairs reach it; "
                        f"lowest {min(fractions):.2f}, highest {max(fractions):.2f}",
                    )
                )
    return metrics


def _pair_table(modality: str, pairs: Sequence[SwappedPair]) -> Table:
    names = MASKS[modality]
    rows = [
        (
            case_name(pair.content),
            case_name(pair.style),
            pair.log_odds_change,
            pair.gradients,
            pair.native_gradients,
            *(pair.mask_dice[name] if name in pair.masks else None for name in names),
            *(pair.smooth_mask_dice[name] if name in pair.masks else None for name in names),
            pair.verdict,
        )
        for pair in pairs
    ]
    measures = (
        "log-odds",
        "gradients",
        "unsmoothed",
        *(f"Dice {n}" for n in names),
        *(f"{n} smoothed" for n in names),
    )
    return Table(title=f"{modality} pairs", columns=("content", "style", *measures, "verdict"), rows=rows)


def _noise_table(pairs: Sequence[SwappedPair]) -> Table:
    rows = [
        (
            case_name(pair.content),
            case_name(pair.style),
            *pair.noise,
            _moved_fraction(pair),
            pair.gradients,
            pair.native_gradients,
        )
        for pair in pairs
        if pair.noise is not None
    ]
    columns = (
        "content",
        "style",
        "noise of the content",
        "noise of the style",
        "noise of the result",
        "moved fraction",
        "gradients",
        "unsmoothed",
    )
    return Table(title="CT noise in HU", columns=columns, rows=rows)

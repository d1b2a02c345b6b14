"""Whether swaps change the look towards the style's and leave the anatomy alone (specification, section 8)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.card.swapped_pairs import (
    StyleScan,
    SwappedPair,
    chosen_pairs,
    measured_style,
    open_content,
    swapped_pairs,
)
from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate
from meduet_training.evaluation.metrics.image_domain_classifier import DomainClassifier
from meduet_training.evaluation.metrics.noise import CLEARLY_APART_HU, moved_share
from meduet_training.evaluation.sections import Metric, EvaluationSection, Table, case_name
from napari_meduet.models.loading import load_model

NUM_PAIRS = 20  # of each modality
# Chest and abdomen scans of the train split whose noises lie farthest apart; both directions of each pair.
NOISE_PAIRS = (("acrin013", "cmbcrc_01068"), ("crlm_1004", "c3l_00189"))
MASKS = {"CT": ("body", "lung", "bone"), "MR": ("body",)}
GOAL_TOWARDS, GOAL_GRADIENTS, GOAL_DICE, GOAL_NOISE = 0.70, 0.95, 0.95, 0.60
HOW = (
    "Scans of the test split in the styles of scans of the train split, strength 1, all other options as "
    "they are by default; pairs drawn evenly over the contents, MR within one body region. The classifier "
    "is a logistic regression on hand-made features of images of the train split (intensities, fine "
    "structure in flat tissue, steepness of borders); it knows nothing of the model. Noise is the robust "
    "deviation from a 3×3 in-plane mean inside once-eroded 0–120 HU tissue, each scan on its own grid; its"
    " share of the way counts pairs more than 5 HU apart. The noise pairs within the train split are scans"
    " that the model was trained on. A change of MR sequence changes gradients by its nature; its figures "
    "have no goal. Masks are thresholds of single voxels (body > -300, lung < -400 inside the body, bone >"
    " 250 HU), which noise alone can cross; of scans that hold none (less than 1 % of the body) no Dice is"
    " taken."
)


def swaps_part(model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int) -> EvaluationSection:
    """Pairs of CT and of MR, and the noise of CT in both directions."""
    metrics: list[Metric] = []
    tables: list[Table] = []
    for modality in ("CT", "MR"):
        styles = [
            measured_style(load_model(model, device), scan) for scan in train if scan.modality == modality
        ]
        contents = [scan for scan in test if scan.modality == modality]
        classifier = DomainClassifier.fitted(
            [style.image for style in styles], [style.scan.domain for style in styles]
        )
        pairs = _swapped(model, contents, styles, classifier, device, seed)
        metrics += _pair_figures(modality, pairs, seed)
        tables.append(_pair_table(modality, pairs))
        if modality == "CT":
            known = _noise_pairs(model, styles, device)
            metrics += _noise_figures(pairs, known, seed)
            tables.append(_noise_table([*pairs, *known]))
    return EvaluationSection(title="Swaps", how=HOW, metrics=tuple(metrics), tables=tuple(tables), seed=seed)


def _swapped(
    model: Path,
    contents: Sequence[Scan],
    styles: Sequence[StyleScan],
    classifier: DomainClassifier,
    device: str,
    seed: int,
) -> list[SwappedPair]:
    wanted = chosen_pairs(contents, [style.scan for style in styles], NUM_PAIRS, seed)
    found = []
    for content in contents:
        names = [style for one, style in wanted if one is content]
        chosen = [style for style in styles if style.scan in names]
        if chosen:
            session = open_content(content, model, device)
            found += [pair for pair, _ in swapped_pairs(session, content, chosen, classifier)]
    return found


def _noise_pairs(model: Path, styles: Sequence[StyleScan], device: str) -> list[SwappedPair]:
    """Both directions of the listed pairs, where the cohort has them."""
    by_name = {case_name(style.scan): style for style in styles}
    found = []
    for pair in NOISE_PAIRS:
        if all(name in by_name for name in pair):
            for content, style in (pair, pair[::-1]):
                scan = by_name[content].scan
                session = open_content(scan, model, device)
                found += [done for done, _ in swapped_pairs(session, scan, [by_name[style]], None)]
    return found


def _pair_figures(modality: str, pairs: Sequence[SwappedPair], seed: int) -> list[Metric]:
    """Means over pairs; for MR without goals."""
    is_ct = modality == "CT"

    def mean(values: Sequence[float], chosen: Sequence[SwappedPair] = pairs) -> Estimate:
        return mean_estimate(values, [pair.content.patient for pair in chosen], seed)

    judged = [pair for pair in pairs if pair.moved is not None]
    towards = mean([float(pair.moved > 0) for pair in judged], judged)  # type: ignore[operator]
    gradients = [pair.gradients for pair in pairs]
    native = [pair.native_gradients for pair in pairs]
    metrics = [
        Metric(
            what=f"{modality}: share of pairs whose log-odds move to the style's domain",
            estimate=towards,
            at_least=GOAL_TOWARDS if is_ct else None,
        ),
        Metric(
            what=f"{modality}: gradient correlation, smoothed 1.5 mm",
            estimate=mean(gradients),
            at_least=GOAL_GRADIENTS if is_ct else None,
            beside=f"lowest {min(gradients):.3f}; unsmoothed on the own grid {np.mean(native):.3f}, "
            f"lowest {min(native):.3f}",
        ),
    ]
    for name in MASKS[modality]:
        shown = [pair for pair in pairs if name in pair.masks]
        if not shown:
            continue
        smooth = [pair.smooth_overlaps[name] for pair in shown]
        metrics.append(
            Metric(
                what=f"{modality}: Dice of {name}",
                estimate=mean([pair.overlaps[name] for pair in shown], shown),
                at_least=GOAL_DICE if is_ct else None,
                beside=f"lowest {min(pair.overlaps[name] for pair in shown):.3f}; "
                f"smoothed by 1.5 mm before the threshold {np.mean(smooth):.3f}, lowest {min(smooth):.3f}",
            )
        )
    return metrics


def _share(pair: SwappedPair) -> float | None:
    """Of the way that the noise moved; None where content and style are not clearly apart."""
    if pair.noises is None or abs(pair.noises[1] - pair.noises[0]) <= CLEARLY_APART_HU:
        return None
    return moved_share(*pair.noises)


def _noise_figures(pairs: Sequence[SwappedPair], known: Sequence[SwappedPair], seed: int) -> list[Metric]:
    metrics = []
    for is_up, word in ((True, "up"), (False, "down")):
        for chosen, where in ((pairs, "test contents"), (known, "within the train split")):
            moved = [(pair, share) for pair in chosen if (share := _share(pair)) is not None]
            moved = [(pair, share) for pair, share in moved if (pair.noises[1] > pair.noises[0]) == is_up]  # type: ignore[index]
            if moved:
                shares = [share for _, share in moved]
                enough = sum(share >= GOAL_NOISE for share in shares)
                metrics.append(
                    Metric(
                        what=f"CT: noise {word}, share of the way, {where}",
                        estimate=mean_estimate(shares, [pair.content.patient for pair, _ in moved], seed),
                        at_least=GOAL_NOISE,
                        beside=f"{enough} of {len(shares)} pairs reach it; lowest {min(shares):.2f}, "
                        f"highest {max(shares):.2f}",
                    )
                )
    return metrics


def _pair_table(modality: str, pairs: Sequence[SwappedPair]) -> Table:
    names = MASKS[modality]
    rows = [
        (
            case_name(pair.content),
            case_name(pair.style),
            pair.moved,
            pair.gradients,
            pair.native_gradients,
            *(pair.overlaps[name] if name in pair.masks else None for name in names),
            *(pair.smooth_overlaps[name] if name in pair.masks else None for name in names),
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
            *pair.noises,
            _share(pair),
            pair.gradients,
            pair.native_gradients,
        )
        for pair in pairs
        if pair.noises is not None
    ]
    columns = (
        "content",
        "style",
        "noise",
        "style's",
        "result's",
        "share of the way",
        "gradients",
        "unsmoothed",
    )
    return Table(title="CT noise in HU", columns=columns, rows=rows)

"""How legible the domain is in content and in style."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort import Scan
from meduet_training.evaluation.probes import Probe, probe
from meduet_training.evaluation.reporting import Figure, Part
from meduet_training.evaluation.subvolumes import Samples, real_samples, simulated_samples
from napari_meduet.models.files import load_model

GOAL_STYLE, GOAL_CONTENT_ABOVE_MAJORITY = 0.85, 0.15
HOW = (
    "Logistic regression on standardised factors of sub-volumes, balanced accuracy, up to 5 folds grouped "
    "by patient. Most real domains here are one patient, from whom no honest probe can tell a scanner; the"
    " goals are therefore judged on simulated scanners (none and five listed ones, `data/scanners.py`), "
    "through which each test scan is seen with the same anatomy. The model met these scanners in training,"
    " not these patients. Real domains with at least two patients are given beside, train scans included, "
    "which the model has learnt from; CT domains and body regions are confounded there, and brain "
    "sequences have two patients."
)


def legibility_part(model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int) -> Part:
    """Probes of style and content, simulated and real."""
    loaded = load_model(model, device)
    figures: list[Figure] = []
    for modality in ("CT", "MR"):
        scans = [scan for scan in test if scan.modality == modality]
        samples = simulated_samples(loaded, scans, seed)
        figures += _probe_figures(f"{modality}, simulated scanners", samples, seed, has_goal=True)
    groups = {
        "CT, real domains": "ct-",
        "MR of limbs, real scanners": "mr-extremity-",
        "MR of brains, real sequences": "mr-brain-",
    }
    for title, prefix in groups.items():
        scans = _several_patients([scan for scan in (*train, *test) if scan.domain.startswith(prefix)])
        if len({scan.domain for scan in scans}) > 1:
            figures += _probe_figures(title, real_samples(loaded, scans), seed, has_goal=False)
    return Part(title="Linear probes for the domain", how=HOW, figures=tuple(figures), seed=seed)


def _several_patients(scans: Sequence[Scan]) -> list[Scan]:
    """Scans of the domains that have at least two patients."""
    patients = {
        domain: {scan.patient for scan in scans if scan.domain == domain}
        for domain in {scan.domain for scan in scans}
    }
    return [scan for scan in scans if len(patients[scan.domain]) > 1]


def _probe_figures(title: str, samples: Samples, seed: int, *, has_goal: bool) -> list[Figure]:
    def found(features: np.ndarray) -> Probe:
        return probe(features, samples.domains, samples.patients, seed)

    style, content = found(samples.style), found(samples.content)
    beside = (
        f"{style.num_domains} domains, {style.num_folds} folds; chance {style.chance:.3f}, "
        f"majority {style.majority:.3f}"
    )
    return [
        Figure(
            what=f"{title}: style",
            estimate=style.accuracy,
            at_least=GOAL_STYLE if has_goal else None,
            beside=beside,
        ),
        Figure(
            what=f"{title}: content",
            estimate=content.accuracy,
            at_most=content.majority + GOAL_CONTENT_ABOVE_MAJORITY if has_goal else None,
            beside=beside,
        ),
    ]

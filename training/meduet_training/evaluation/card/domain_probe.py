"""Linear probes of the domain, for real and simulated scanners (specification, section 14)."""

from collections.abc import Sequence
from pathlib import Path

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.card.subvolumes import Samples, real_samples, simulated_samples
from meduet_training.evaluation.metrics.probes import Probe, probe
from meduet_training.evaluation.sections import EvaluationSection, Metric
from napari_meduet.models.loading import load_model

GOAL_STYLE, GOAL_CONTENT_ABOVE_MAJORITY = 0.85, 0.15
DESCRIPTION = (
    "Balanced accuracy of a logistic regression on standardised factors of sub-volumes, with up to 5 folds "
    "grouped by patient. Most real domains have one patient, so a probe cannot separate the scanner from "
    "the patient. The goals are therefore measured on simulated scanners (the original and five others, "
    "data/augmentation/scanners.py), which see the same anatomy of each scan. The probe is fitted to scans "
    "of both splits and evaluated on patients of the test split. The model was trained with these "
    "scanners, but not with these patients. A sharp scan with a smooth kernel looks like a smooth scan, so "
    "no probe can be perfect; the accuracy of a probe of hand-made image features is given as a "
    "comparison. MR is T1 only, because an inverted T1 looks like a T2. The real domains with at least two "
    "patients follow, evaluated on both splits. Body region and CT domain are confounded there, and the "
    "brain sequences have two patients."
)
REAL_GROUPS = {  # prefix of the domains
    "CT, real domains": "ct-",
    "MR of limbs, real scanners": "mr-extremity-",
    "MR of brains, real sequences": "mr-brain-",
}


def domain_probe_section(
    model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int
) -> EvaluationSection:
    """Measure probes of style and content, for simulated and for real scanners."""
    loaded = load_model(model, device)
    scans = [*train, *test]
    simulated = {
        "CT, simulated scanners": [scan for scan in scans if scan.modality == "CT"],
        "T1, simulated scanners": [scan for scan in scans if scan.sequence == "T1"],
    }
    metrics: list[Metric] = []
    for title, chosen in simulated.items():
        style, content, image = (
            _probed(samples, seed, only_test=True) for samples in simulated_samples(loaded, chosen, seed)
        )
        metrics += _figures(title, style, content, f"images {image.accuracy.value:.3f}; ", has_goal=True)
    for title, prefix in REAL_GROUPS.items():
        chosen = _several_patients([scan for scan in scans if scan.domain.startswith(prefix)])
        if len({scan.domain for scan in chosen}) > 1:
            style, content = (
                _probed(samples, seed, only_test=False) for samples in real_samples(loaded, chosen)
            )
            metrics += _figures(title, style, content, "", has_goal=False)
    return EvaluationSection(
        title="Linear probes for the domain", description=DESCRIPTION, metrics=tuple(metrics), seed=seed
    )


def _probed(samples: Samples, seed: int, *, only_test: bool) -> Probe:
    evaluated = samples.splits == "test" if only_test else None
    return probe(samples.features, samples.domains, samples.patients, seed, evaluated)


def _several_patients(scans: Sequence[Scan]) -> list[Scan]:
    """Return the scans of domains with at least two patients."""
    patients = {
        domain: {scan.patient for scan in scans if scan.domain == domain}
        for domain in {scan.domain for scan in scans}
    }
    return [scan for scan in scans if len(patients[scan.domain]) > 1]


def _figures(title: str, style: Probe, content: Probe, comparison: str, *, has_goal: bool) -> list[Metric]:
    comparison += (
        f"{style.num_domains} domains, {style.num_folds} folds; chance {style.chance:.3f}, "
        f"majority {style.majority:.3f}"
    )
    return [
        Metric(
            name=f"{title}: style",
            estimate=style.accuracy,
            at_least=GOAL_STYLE if has_goal else None,
            comparison=comparison,
        ),
        Metric(
            name=f"{title}: content",
            estimate=content.accuracy,
            at_most=content.majority + GOAL_CONTENT_ABOVE_MAJORITY if has_goal else None,
            comparison=comparison,
        ),
    ]

"""How legible the domain is in content and in style."""

from collections.abc import Sequence
from pathlib import Path

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.card.subvolumes import Samples, real_samples, simulated_samples
from meduet_training.evaluation.metrics.probes import Probe, probe
from meduet_training.evaluation.sections import Metric, EvaluationSection
from napari_meduet.models.loading import load_model

GOAL_STYLE, GOAL_CONTENT_ABOVE_MAJORITY = 0.85, 0.15
HOW = (
    "Logistic regression on standardised factors of sub-volumes, balanced accuracy, up to 5 folds grouped "
    "by patient. Most real domains here are one patient, from whom no honest probe can tell a scanner; the"
    " goals are therefore judged on simulated scanners (none and five listed ones, `data/scanners.py`) "
    "through which each scan is seen with the same anatomy: scans of both splits teach the probe, patients"
    " of the test split alone are judged. The model met these scanners in training, not these patients. A "
    "sharp scan seen smoothly is like a smooth scan as it is, so no reader can be perfect: what a probe "
    "reads from hand-made features of the images is given beside. MR is T1 only, since an inverted T1 "
    "looks like a T2. Real domains with at least two patients follow, train scans judged too; body regions"
    " and CT domains are confounded there, and brain sequences have two patients."
)
REAL_GROUPS = {  # first words of the domains
    "CT, real domains": "ct-",
    "MR of limbs, real scanners": "mr-extremity-",
    "MR of brains, real sequences": "mr-brain-",
}


def domain_probe_part(
    model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int
) -> EvaluationSection:
    """Probes of style and content, simulated and real."""
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
    for title, words in REAL_GROUPS.items():
        chosen = _several_patients([scan for scan in scans if scan.domain.startswith(words)])
        if len({scan.domain for scan in chosen}) > 1:
            style, content = (
                _probed(samples, seed, only_test=False) for samples in real_samples(loaded, chosen)
            )
            metrics += _figures(title, style, content, "", has_goal=False)
    return EvaluationSection(title="Linear probes for the domain", how=HOW, metrics=tuple(metrics), seed=seed)


def _probed(samples: Samples, seed: int, *, only_test: bool) -> Probe:
    judged = samples.splits == "test" if only_test else None
    return probe(samples.features, samples.domains, samples.patients, seed, judged)


def _several_patients(scans: Sequence[Scan]) -> list[Scan]:
    """Scans of the domains that have at least two patients."""
    patients = {
        domain: {scan.patient for scan in scans if scan.domain == domain}
        for domain in {scan.domain for scan in scans}
    }
    return [scan for scan in scans if len(patients[scan.domain]) > 1]


def _figures(title: str, style: Probe, content: Probe, beside: str, *, has_goal: bool) -> list[Metric]:
    beside += (
        f"{style.num_domains} domains, {style.num_folds} folds; chance {style.chance:.3f}, "
        f"majority {style.majority:.3f}"
    )
    return [
        Metric(
            what=f"{title}: style",
            estimate=style.accuracy,
            at_least=GOAL_STYLE if has_goal else None,
            beside=beside,
        ),
        Metric(
            what=f"{title}: content",
            estimate=content.accuracy,
            at_most=content.majority + GOAL_CONTENT_ABOVE_MAJORITY if has_goal else None,
            beside=beside,
        ),
    ]

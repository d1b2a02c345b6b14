"""All metrics of a model on the test split, for its card and for the documentation (`meduet-train metrics`).

Each section is a file beside this one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from meduet_training.data.cohort.scans import Scan, read_cohort, trainable
from meduet_training.evaluation.card.domain_probe import domain_probe_section
from meduet_training.evaluation.card.fidelity import fidelity_section
from meduet_training.evaluation.card.identity import identity_section
from meduet_training.evaluation.card.paired_truth import paired_section
from meduet_training.evaluation.card.swaps import swaps_section
from meduet_training.evaluation.sections import EvaluationSection, write_section
from napari_meduet.errors import InputError
from napari_meduet.models.card import read_card
from napari_meduet.models.saving import save_metrics

SEED = 2025
SECTIONS: dict[str, Callable[[Path, Sequence[Scan], Sequence[Scan], str, int], EvaluationSection]] = {
    "roundtrip": fidelity_section,
    "probes": domain_probe_section,
    "swaps": swaps_section,
    "paired": paired_section,
    "identities": identity_section,
}


def measure_model(
    model: Path,
    data: Path,
    names: Sequence[str],
    device: str,
    document: Path | None,
    report: Callable[[str], None],
) -> None:
    """Measure sections of metrics, and write each of them to the card as soon as it is finished.

    Args:
        names: names of sections in `SECTIONS`.
        document: a page with markers for each section. None: only the card is written.
        report: called with the Markdown text of each section.

    Raises:
        InputError: a section is unknown, or the model, the cohort or the document cannot be used.
    """
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise InputError(f"Unknown sections: {', '.join(unknown)}. Choose from {', '.join(SECTIONS)}.")
    cohort = read_cohort(data)
    test = [scan for scan in cohort if scan.split == "test"]
    for name in names:
        section = SECTIONS[name](model, trainable(cohort), test, device, SEED)
        report(section.as_markdown())
        save_metrics(model, read_card(model).metrics | {name: section.as_data()})
        if document is not None:
            write_section(document, name, section.as_markdown())

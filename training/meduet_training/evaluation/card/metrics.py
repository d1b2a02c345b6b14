"""Every figure of the first issue on the test split, into the model's card and the documentation."""

from collections.abc import Callable, Sequence
from pathlib import Path

from meduet_training.data.cohort.scans import Scan, read_cohort, trainable
from meduet_training.evaluation.card.domain_probe import domain_probe_part
from meduet_training.evaluation.card.fidelity import fidelity_part
from meduet_training.evaluation.card.identity import identity_part
from meduet_training.evaluation.card.paired_truth import paired_part
from meduet_training.evaluation.card.swaps import swaps_part
from meduet_training.evaluation.sections import EvaluationSection, write_section
from napari_meduet.errors import InputError
from napari_meduet.models.card import read_card
from napari_meduet.models.saving import save_metrics

SEED = 2025
PARTS: dict[str, Callable[[Path, Sequence[Scan], Sequence[Scan], str, int], EvaluationSection]] = {
    "roundtrip": fidelity_part,
    "probes": domain_probe_part,
    "swaps": swaps_part,
    "paired": paired_part,
    "identities": identity_part,
}


def measure_model(
    model: Path,
    data: Path,
    names: Sequence[str],
    device: str,
    document: Path | None,
    show: Callable[[str], None],
) -> None:
    """Measure the parts of these names; each is written as soon as it is known.

    Args:
        document: has markers for each part; None: only the card is written.

    Raises:
        InputError: a part is unknown, or the model, the cohort or the document cannot be used.
    """
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise InputError(f"There are no figures {', '.join(unknown)}; choose from {', '.join(PARTS)}.")
    cohort = read_cohort(data)
    test = [scan for scan in cohort if scan.split == "test"]
    for name in names:
        part = PARTS[name](model, trainable(cohort), test, device, SEED)
        show(part.as_markdown())
        save_metrics(model, read_card(model).metrics | {name: part.as_data()})
        if document is not None:
            write_section(document, name, part.as_markdown())

"""What the trainings of all tasks share: whom to learn from, whom to judge by, in which styles (specification, section 10)."""

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import torch

from meduet_training.data.cohort.scan import Scan
from meduet_training.tasks.finetuning.config import COLUMNS, Styles
from napari_meduet.core.analysis.style_augmentation import StyleAugmentation, StyleBank
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.segmentation.training_samples import MODALITIES
from napari_meduet.volumes.volume import Modality

FEWEST_TO_HOLD_OUT = 5  # patients: with fewer, all of them are needed to learn from
HELD_OUT_SHARE = 0.2

T = TypeVar("T")


def augmentation_for(
    styles: Styles, asked: StyleAugmentation | None, num_labelled: int, num_scans: int
) -> StyleAugmentation | None:
    """How much is learnt in other styles; None: nothing (Table 12).

    Args:
        asked: what the configuration already says.
        num_labelled, num_scans: scans to learn from, with labels and at all.

    Raises:
        InputError: both say something, and not the same.
    """
    if styles == "off":
        chosen = None
    elif styles == "auto":
        chosen = StyleAugmentation.for_labels(num_labelled, num_labelled / num_scans)
    else:
        chosen = COLUMNS[styles]
    if asked is not None and asked != chosen:
        raise InputError(
            f"training.objective.augmentation says something else than styles: {styles} (Table 12); leave "
            "the first out, or choose the column that is meant: " + ", ".join(COLUMNS) + "."
        )
    return chosen


def style_bank(model: Model, cohort: Sequence[Scan], modalities: AbstractSet[Modality]) -> StyleBank:
    """The styles that a model knows, but for those of domains that only test scans have.

    Raises:
        InputError: it knows none of a modality that is learnt from.
    """
    trained = {scan.domain for scan in cohort if scan.split == "train"}
    unseen = {scan.domain for scan in cohort} - trained
    known = {name: style for name, style in model.known_styles.items() if name not in unseen}
    if missing := modalities - {style.modality for style in known.values()}:
        raise InputError(
            f"The model {model.card.name} knows no styles of {' and '.join(sorted(missing))}, so crops "
            "cannot be shown in others; train with --styles off, or give a model that knows some."
        )
    return StyleBank(
        torch.stack([style.statistics.mean.float() for style in known.values()]),
        torch.tensor([MODALITIES.index(style.modality) for style in known.values()]),
    )


def held_out(scans: Mapping[str, Sequence[T]], kinds: Mapping[str, AbstractSet[str]]) -> set[str]:
    """The patients who judge a training: a fifth of them, or nobody where there are fewer than five.

    Nobody is held out who alone has something to learn from.

    Args:
        scans: of each patient.
        kinds: what is in the scans of each patient, such as the classes that are labelled there.
    """
    if len(scans) < FEWEST_TO_HOLD_OUT:
        return set()
    wanted, held = round(HELD_OUT_SHARE * len(scans)), set()
    for patient in sorted(scans, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        others = [kinds[other] for other in scans if other not in held | {patient}]
        if len(held) < wanted and kinds[patient] <= set().union(*others):
            held.add(patient)
    return held

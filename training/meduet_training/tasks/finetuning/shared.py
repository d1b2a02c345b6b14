"""Functions that all fine-tuning tasks share: validation patients and styles (specification, section 10)."""

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import torch

from meduet_training.data.cohort.scan import Scan
from meduet_training.tasks.choices import Styles
from meduet_training.tasks.finetuning.config import COLUMNS
from napari_meduet.core.analysis.style_augmentation import StyleAugmentation, StyleBank
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.segmentation.training_samples import MODALITIES
from napari_meduet.volumes.modality import Modality

FEWEST_TO_HOLD_OUT = 5  # patients; fewer are all needed for the training
VALIDATION_FRACTION = 0.2  # of the patients

T = TypeVar("T")


def style_augmentation(
    styles: Styles, configured: StyleAugmentation | None, num_labelled: int, num_scans: int
) -> StyleAugmentation | None:
    """Return how many crops are shown in other styles (Table 12); None: no crops.

    Args:
        configured: the augmentation in the objective's configuration.
        num_labelled, num_scans: number of training scans with labels, and of all training scans.

    Raises:
        InputError: `styles` and `configured` differ.
    """
    if styles == "off":
        chosen = None
    elif styles == "auto":
        chosen = StyleAugmentation.for_labels(num_labelled, num_labelled / num_scans)
    else:
        chosen = COLUMNS[styles]
    if configured is not None and configured != chosen:
        raise InputError(
            f"training.objective.augmentation says something else than styles: {styles} (Table 12). Leave "
            "out the first, or choose one of the columns " + ", ".join(COLUMNS) + "."
        )
    return chosen


def style_bank(model: Model, cohort: Sequence[Scan], modalities: AbstractSet[Modality]) -> StyleBank:
    """Return the styles that a model knows, without those of domains that have only test scans.

    Raises:
        InputError: the model knows no style of a modality in the training.
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


def validation_patients(
    scans: Mapping[str, Sequence[T]], classes: Mapping[str, AbstractSet[str]]
) -> set[str]:
    """Return the patients of the validation set: a fifth of them, or none of fewer than five.

    A patient is not chosen if no other training patient shows one of their classes.

    Args:
        scans: the scans of each patient.
        classes: the classes in the scans of each patient.
    """
    if len(scans) < FEWEST_TO_HOLD_OUT:
        return set()
    wanted, chosen = round(VALIDATION_FRACTION * len(scans)), set()
    for patient in sorted(scans, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        others = [classes[other] for other in scans if other not in chosen | {patient}]
        if len(chosen) < wanted and classes[patient] <= set().union(*others):
            chosen.add(patient)
    return chosen

"""Validation of a classifier in training: loss and balanced accuracy on whole scans of the validation set.

The averaged weights classify the scans, as in later use, and every class has the same weight. The weights
with the lowest loss are stored in the folder of the run. If the loss does not fall for some validations, the
run ends. `engine/validator.py` holds the protocol.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.engine.best_weights import read_best, write_best
from meduet_training.engine.early_stopping import Patience
from meduet_training.evaluation.metrics.probes import balanced_accuracy
from meduet_training.evaluation.run_results import write_results
from meduet_training.tasks.classifier.results import results_table, scan_records
from napari_meduet.core.analysis.classifier import ScanClassifier
from napari_meduet.core.analysis.finetuning import ClassificationObjective
from napari_meduet.pipelines.classification import latent_probabilities

SCORE = "loss"
SMALLEST_PROBABILITY = 1e-7  # in the loss, about the resolution of float32


@dataclass(frozen=True, kw_only=True)
class ClassifiedEntries:
    """Encoded scans, and the number of the class of each scan."""

    entries: Sequence[FactorEntry]
    labels: Sequence[int]


class ClassifierValidation:
    """Validator of a classifier on whole scans.

    Args:
        validation: the validation set.
        tests: scans of the test split, which are measured once at the end.
        names: names of the classes.
        patience: number of validations without a lower loss after which the run ends; 0: it never ends early.
    """

    def __init__(
        self, validation: ClassifiedEntries, tests: ClassifiedEntries, names: Sequence[str], patience: int
    ) -> None:
        self._entries, self._labels = list(validation.entries), np.array(validation.labels)
        self._tests, self._names = tests, names
        self._patience = Patience(validations=patience, score=SCORE, words="loss", falls=True)

    @property
    def note(self) -> str:
        return f"{len(self._entries)} whole scans of held-out patients of the train split."

    def counts(self) -> dict[str, int]:
        """Return the number of scans of each domain."""
        return dict(sorted(Counter(entry.domain for entry in self._entries).items()))

    def can_measure(self, objective: nn.Module) -> bool:
        return isinstance(objective, ClassificationObjective)

    def pictures(
        self, objective: ClassificationObjective, done: int, total: int
    ) -> Iterator[tuple[str, Any]]:
        """Yield nothing: a classifier has metrics, but no panels."""
        return iter(())

    def metrics(
        self, objective: ClassificationObjective, seed: int
    ) -> tuple[dict[str, Any], dict[str, float]]:
        probabilities = probabilities_of(objective.teacher, self._entries)
        of_truth = probabilities[np.arange(len(self._labels)), self._labels]
        losses = -np.log(np.maximum(of_truth, SMALLEST_PROBABILITY))
        classes = np.unique(self._labels)
        found = {
            SCORE: float(np.mean([losses[self._labels == number].mean() for number in classes])),
            "balanced_accuracy": balanced_accuracy(self._labels, probabilities.argmax(axis=1)),
        }
        return found, {f"validation/{name}": value for name, value in found.items()}

    def keep(
        self, objective: ClassificationObjective, rows: Sequence[Mapping[str, Any]], folder: Path
    ) -> None:
        """Store the weights if this validation is the best so far."""
        best = self._patience.best(rows)
        if best is not None and best is rows[-1]:
            write_best(folder, objective.teacher, best["step"], best["balanced_accuracy"])

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return self._patience.reason_to_end(rows)

    def at_end(self, objective: ClassificationObjective, seed: int, folder: Path) -> None:
        """Write the results of the best weights on the test scans, if these have two or more classes."""
        entries, labels = self._tests.entries, np.array(self._tests.labels)
        if len(np.unique(labels)) < 2:
            return
        network = copy.deepcopy(objective.teacher)
        if best := read_best(folder):
            network.load_state_dict(best.tensors)
        probabilities = probabilities_of(network, entries)
        table = results_table(probabilities, labels, self._names, entries, seed)
        write_results(folder, table, scan_records(probabilities, labels, self._names, entries))


@torch.inference_mode()
def probabilities_of(network: ScanClassifier, entries: Sequence[FactorEntry]) -> np.ndarray:
    """Return the probability of each class for each scan, with shape (N, K)."""
    rows = []
    for entry in entries:
        whole = entry.read((0, 0, 0), entry.grid)
        rows.append(latent_probabilities(network, whole["mean"], whole["coverage"])[0])
    return torch.stack(rows).numpy()

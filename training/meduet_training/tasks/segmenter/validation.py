"""Validation of a segmenter in training: Dice of each class on the validation set, and panels of labels.

Dice is measured over all voxels of fixed crops, which are drawn like those of the training. The averaged
weights predict, as in later use. The weights with the best Dice are stored in the folder of the run. If Dice
does not rise for some validations, the run ends. `engine/validator.py` holds the protocol.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from meduet_training.data.labels.scans import LabelledScan
from meduet_training.data.labels.task import LabelTask
from meduet_training.data.sources.labelled_crops import LabelledChoice, LabelledSource
from meduet_training.engine.best_weights import read_best, write_best
from meduet_training.engine.early_stopping import Patience
from meduet_training.evaluation.factors.validation import middle_slices
from meduet_training.evaluation.run_results import write_results
from meduet_training.tasks.segmenter.label_panel import LabelledSlices, label_panel
from meduet_training.tasks.segmenter.results import measure_scans, results_table
from napari_meduet.core.analysis.finetuning import IGNORED, SegmentationObjective
from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.models.model import Model
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import IntensityProfile

NUM_CROPS = 24
CROPS_AT_ONCE = 2
NUM_SHOWN = 3  # crops in a panel
SCORE = "dice"


@dataclass(frozen=True, kw_only=True)
class TestSplit:
    """The labelled scans of the test split. Neither training nor validation uses them.

    Attributes:
        model: the model on the device of the training.
    """

    model: Model
    task: LabelTask
    scans: Sequence[LabelledScan]


class SegmenterValidation:
    """Validator of a segmenter on fixed crops.

    Args:
        source: draws the crops of step -1, which are the same in every run with its seed.
        tests: scans that are measured once at the end; its model decodes the crops for panels.
        patience: number of validations without a better Dice after which the run ends; 0: never.
        note: a sentence about the source of the crops, for captions.
    """

    def __init__(self, source: LabelledSource, tests: TestSplit, patience: int, note: str) -> None:
        self._source, self._tests, self._note = source, tests, note
        self._model, self._names = tests.model, tests.task.names
        self._patience = Patience(validations=patience, score=SCORE, words="Dice")
        self._choices = source.choose(-1, NUM_CROPS)

    @property
    def note(self) -> str:
        return self._note

    def counts(self) -> dict[str, int]:
        """Return the number of crops of each domain."""
        return dict(sorted(Counter(self._source.domains[each.domain] for each in self._choices).items()))

    def can_measure(self, objective: nn.Module) -> bool:
        return isinstance(objective, SegmentationObjective)

    def metrics(self, objective: SegmentationObjective, seed: int) -> tuple[dict[str, Any], dict[str, float]]:
        dice = self.dice(objective)
        mean = float(np.mean(list(dice.values()))) if dice else None
        curves = {f"validation dice/{name}": value for name, value in dice.items()}
        return {SCORE: mean, "classes": dice}, curves | (
            {"validation/dice": mean} if mean is not None else {}
        )

    def pictures(self, objective: SegmentationObjective, done: int, total: int) -> Iterator[tuple[str, Any]]:
        """Yield one panel: truth and prediction over the crops with the most classes."""
        slices = [self._shown(objective.teacher, choice) for choice in self._fullest()]
        title = f"after {done:,} of {total:,} steps"
        yield "labels", label_panel(slices, self._names, title, self._note)

    def keep(self, objective: SegmentationObjective, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Store the weights if this validation is the best so far."""
        best = self._patience.best(rows)
        if best is not None and best is rows[-1]:
            write_best(folder, objective.teacher, best["step"], best[SCORE])

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return self._patience.reason_to_end(rows)

    def at_end(self, objective: SegmentationObjective, seed: int, folder: Path) -> None:
        """Write Dice and NSD of the best weights on the test split, if it has labels."""
        if not self._tests.scans:
            return
        network = copy.deepcopy(objective.teacher)
        if best := read_best(folder):
            network.load_state_dict(best.tensors)
        with Progress(console=Console(stderr=True)) as bar:
            shown = bar.add_task("Test scans", total=len(self._tests.scans))
            results = measure_scans(
                self._tests.model,
                network,
                self._tests.task,
                self._tests.scans,
                lambda number, of: bar.update(shown, completed=number),
            )
            bar.update(shown, completed=len(self._tests.scans))
        if results:
            table = results_table(results, self._names[1:], seed)
            scans = [asdict(each) for each in results]
            write_results(folder, table, scans)

    @torch.inference_mode()
    def dice(self, objective: SegmentationObjective) -> dict[str, float]:
        """Return the Dice of each class that the crops show, over the annotated voxels."""
        device = next(objective.parameters()).device
        counts = torch.zeros(len(self._names), 3)  # voxels in both, predicted voxels, true voxels
        for first in range(0, len(self._choices), CROPS_AT_ONCE):
            batch = self._source.read(self._choices[first : first + CROPS_AT_ONCE])
            on_device: Any = {name: values.to(device) for name, values in batch.items()}
            scores = objective.scores(objective.teacher, on_device["latent"], on_device)
            classes = scores.argmax(dim=1).cpu()
            for crop, target, annotated in zip(classes, batch["target"], batch["annotated"], strict=True):
                is_known = target != IGNORED
                for k in annotated.nonzero().flatten().tolist():
                    predicted, true = (crop == k) & is_known, target == k
                    counts[k] += torch.stack([(predicted & true).sum(), predicted.sum(), true.sum()])
        return {
            name: float(2 * both / (predicted + true))
            for name, (both, predicted, true) in zip(self._names[1:], counts[1:], strict=True)
            if true > 0
        }

    def _fullest(self) -> list[LabelledChoice]:
        """Return the crops with the most classes in their middle slice, from different scans if possible."""
        shown = [len(np.unique(self._truth(choice))) for choice in self._choices]
        order = sorted(range(len(shown)), key=lambda row: (-shown[row], row))
        by_scan: dict[str, list[LabelledChoice]] = {}
        for choice in (self._choices[row] for row in order):
            by_scan.setdefault(self._source.entries[choice.example].scan, []).append(choice)
        in_turns = chain.from_iterable(zip_longest(*by_scan.values()))
        return list(islice((choice for choice in in_turns if choice is not None), NUM_SHOWN))

    def _truth(self, choice: LabelledChoice) -> np.ndarray:
        """Return the true classes in the middle axial slice of a crop, with shape (X, Y)."""
        stride = self._source.stride
        x, y, z = (
            slice(a * step, (a + n) * step)
            for a, n, step in zip(choice.crop.corner, self._source.size, stride, strict=True)
        )
        return self._source.example(choice.example).target[x, y, (z.start + z.stop) // 2].numpy()

    @torch.inference_mode()
    def _shown(self, network: LatentUNETR, choice: LabelledChoice) -> LabelledSlices:
        """Return the middle axial slice of a crop. If it has several sequences, this is the first."""
        entry, model = self._source.entries[choice.example], self._model
        latent = self._source.read([choice])["latent"]
        found = network(latent.to(next(network.parameters()).device)).argmax(dim=1)[0].cpu()
        first = latent[:, : model.tokenizer.channels]
        (values,) = middle_slices(first, cast(Tokenizer, model.tokenizer), model.latents)
        if entry.modality == "CT":
            knots = model.card.profiles["CT"].knots
            assert knots is not None, "a CT profile has its knots"
            values = IntensityProfile("ct", knots).decode(values)
        return LabelledSlices(
            modality=entry.modality,
            domain=entry.domain,
            values=values,
            truth=self._truth(choice),
            predicted=found[..., found.shape[-1] // 2].numpy(),
        )

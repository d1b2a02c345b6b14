"""What a segmenter in training finds in scans it does not learn from: Dice of each class, and overlays.

These are `Sights` (reporting/sights.py). Dice is that of fixed crops, drawn as the training draws, all of them
together; it is the average of the weights that is looked at, as it is what will predict. The best so far is
kept in the run's folder. Where it has not risen for a while, the run is asked to end.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from meduet_training.best_weights import write_best
from meduet_training.data.labelled_source import LabelledChoice, LabelledSource
from meduet_training.evaluation.label_panel import LabelledSlices, label_panel
from meduet_training.evaluation.validation import middle_slices
from napari_meduet.core.analysis.finetuning import IGNORED, SegmentationObjective
from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.models.files import Model
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import IntensityProfile

NUM_CROPS = 24
AT_ONCE = 2  # of them
SHOWN = 3  # crops of a picture
SCORE = "dice"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a run goes on that gets no better.

    Attributes:
        validations: so many in a row may bring nothing; 0: any number.
    """

    validations: int

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """A sentence, once there is one."""
        best = best_row(rows)
        if (
            best is None
            or not self.validations
            or sum(row["step"] > best["step"] for row in rows) < self.validations
        ):
            return ""
        return (
            f"the validation Dice has not risen for {self.validations} validations; the weights of the best, "
            f"{best[SCORE]:.3f} after step {best['step']}, are kept."
        )


def best_row(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first of the rows with the highest Dice."""
    scored = [row for row in rows if row.get(SCORE) is not None]
    return max(scored, key=lambda row: row[SCORE], default=None)


class SegmenterValidation:
    """Fixed crops of a run.

    Args:
        source: draws them; its seed and step -1 say which.
        model: its tokenizer decodes them for the eye.
        names: of the classes, the background first.
        note: where the crops come from, for captions.
    """

    def __init__(
        self, source: LabelledSource, model: Model, names: Sequence[str], patience: Patience, note: str
    ) -> None:
        self._source, self._model, self._names = source, model, names
        self._patience, self._note = patience, note
        self._choices = source.choose(-1, NUM_CROPS)

    @property
    def note(self) -> str:
        return self._note

    def counts(self) -> dict[str, int]:
        """Crops of each domain."""
        return dict(sorted(Counter(self._source.domains[each.domain] for each in self._choices).items()))

    def sees(self, objective: nn.Module) -> bool:
        return isinstance(objective, SegmentationObjective)

    def figures(self, objective: SegmentationObjective, seed: int) -> tuple[dict[str, Any], dict[str, float]]:
        dice = self.dice(objective)
        mean = float(np.mean(list(dice.values()))) if dice else None
        curves = {f"validation dice/{name}": value for name, value in dice.items()}
        return {SCORE: mean, "classes": dice}, curves | (
            {"validation/dice": mean} if mean is not None else {}
        )

    def pictures(self, objective: SegmentationObjective, done: int, total: int) -> Iterator[tuple[str, Any]]:
        """One panel: truth and prediction over the crops that show most."""
        slices = [self._shown(objective.teacher, choice) for choice in self._fullest()]
        title = f"after {done:,} of {total:,} steps"
        yield "labels", label_panel(slices, self._names, title, self._note)

    def keep(self, objective: SegmentationObjective, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """The weights, if this was the best validation so far."""
        best = best_row(rows)
        if best is not None and best is rows[-1]:
            write_best(folder, objective.teacher, best["step"], best[SCORE])

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return self._patience.reason_to_end(rows)

    def at_end(self, objective: SegmentationObjective, seed: int, folder: Path) -> None:
        """Nothing beside the last panels."""

    @torch.inference_mode()
    def dice(self, objective: SegmentationObjective) -> dict[str, float]:
        """Of each class that the crops' blocks show, over the voxels that somebody looked at."""
        device = next(objective.parameters()).device
        counts = torch.zeros(len(self._names), 3)  # in both, found, true
        for first in range(0, len(self._choices), AT_ONCE):
            batch = self._source.read(self._choices[first : first + AT_ONCE])
            on_device: Any = {name: values.to(device) for name, values in batch.items()}
            scores = objective.scores(objective.teacher, on_device["latent"], on_device)
            found = scores.argmax(dim=1).cpu()
            for one, target, annotated in zip(found, batch["target"], batch["annotated"], strict=True):
                is_known = target != IGNORED
                for k in annotated.nonzero().flatten().tolist():
                    mine, true = (one == k) & is_known, target == k
                    counts[k] += torch.stack([(mine & true).sum(), mine.sum(), true.sum()])
        return {
            name: float(2 * both / (mine + true))
            for name, (both, mine, true) in zip(self._names[1:], counts[1:], strict=True)
            if true > 0
        }

    def _fullest(self) -> list[LabelledChoice]:
        """The crops that show most in their middle slice."""
        labelled = []
        for choice in self._choices:
            middle = self._truth(choice)
            labelled.append(int(((middle != 0) & (middle != IGNORED)).sum()))
        order = sorted(range(len(labelled)), key=lambda row: (-labelled[row], row))
        return [self._choices[row] for row in order[:SHOWN]]

    def _truth(self, choice: LabelledChoice) -> np.ndarray:
        """(X, Y), the classes in the middle axial slice of a whole crop."""
        stride = self._source.stride
        x, y, z = (
            slice(a * stride, (a + n) * stride)
            for a, n in zip(choice.crop.corner, self._source.size, strict=True)
        )
        return self._source.example(choice.example).target[x, y, (z.start + z.stop) // 2].numpy()

    @torch.inference_mode()
    def _shown(self, network: LatentUNETR, choice: LabelledChoice) -> LabelledSlices:
        """The middle axial slice of a crop; of several sequences, the first."""
        entry, model = self._source.entries[choice.example], self._model
        latent = self._source.read([choice])["latent"]
        found = network(latent.to(next(network.parameters()).device)).argmax(dim=1)[0].cpu()
        mean, std = model.latent_mean.flatten(), model.latent_std.flatten()
        (values,) = middle_slices(latent[:, : len(mean)], cast(Tokenizer, model.tokenizer), mean, std)
        if entry.modality == "CT":
            knots = model.card.profiles["CT"].knots
            assert knots is not None, "a CT profile has its knots"
            values = IntensityProfile("ct", knots).decode(values)
        return LabelledSlices(
            modality=entry.modality,
            domain=entry.domain,
            values=values,
            truth=self._truth(choice),
            found=found[..., found.shape[-1] // 2].numpy(),
        )

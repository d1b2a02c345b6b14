"""The protocol of a validator: what a task measures and shows during a run, beside its losses.

`reporting/run_logger.py` calls the validator after the steps that `TrainerOptions` chooses, and writes its
metrics and panels.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn


class Validator(Protocol):
    """What a task measures and shows during a run."""

    @property
    def note(self) -> str:
        """A sentence about the source of the validation set, for captions."""
        ...

    def counts(self) -> dict[str, int]:
        """Return the number of crops or scans of each domain."""
        ...

    def can_measure(self, objective: nn.Module) -> bool:
        """Return whether this validator can measure objectives of this class."""
        ...

    def pictures(self, objective: Any, done: int, total: int) -> Iterator[tuple[str, Any]]:
        """Yield the name and the panel of each picture after `done` of `total` steps."""
        ...

    def metrics(self, objective: Any, seed: int) -> tuple[dict[str, Any], dict[str, float]]:
        """Return a row of validation.jsonl, and the points of TensorBoard curves."""
        ...

    def keep(self, objective: Any, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Store what a later step needs in the folder of the run, such as the best weights.

        Args:
            rows: rows of all validations so far; the last one is that of `objective`.
        """
        ...

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return a sentence if the validations so far are a reason to end the run; otherwise ""."""
        ...

    def at_end(self, objective: Any, seed: int, folder: Path) -> None:
        """Write the results of the finished run into its folder."""
        ...


class NoEarlyStopping:
    """The methods of a validator that never ends a run and stores nothing."""

    def keep(self, objective: Any, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        pass

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return ""

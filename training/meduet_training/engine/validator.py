"""What there is to see of a run beside its losses. Who looks when, and where it goes, is reporting/run_logger.py's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn


class Validator(Protocol):
    """What there is to see of a run, beside its losses."""

    @property
    def note(self) -> str:
        """A sentence for captions: where the crops come from."""
        ...

    def counts(self) -> dict[str, int]:
        """Crops of each domain."""
        ...

    def sees(self, objective: nn.Module) -> bool:
        """Whether it is about networks of this kind."""
        ...

    def pictures(self, objective: Any, done: int, total: int) -> Iterator[tuple[str, Any]]:
        """Panels after so many steps, each under its name."""
        ...

    def metrics(self, objective: Any, seed: int) -> tuple[dict[str, Any], dict[str, float]]:
        """A row of validation.jsonl, and points of curves."""
        ...

    def keep(self, objective: Any, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Keep in the run's folder what a later validation may ask for; the last of the rows is today's."""
        ...

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """What all validations so far say for ending the run, as a sentence; empty: go on."""
        ...

    def at_end(self, objective: Any, seed: int, folder: Path) -> None:
        """What is written once, beside a run's panels."""
        ...


class NoEarlyStopping:
    """The part of `Validator` of which a run's length does not depend."""

    def keep(self, objective: Any, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        pass

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return ""

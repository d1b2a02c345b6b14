"""Early stopping: when the validation score of a run no longer improves, and which step was best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a run continues without improvement.

    Attributes:
        validations: number of consecutive validations without improvement that end the run; 0: never.
        score: name of the score in a row of validation.jsonl.
        words: name of the score in messages.
        falls: whether a lower score is better.

    Examples:
        >>> patience = Patience(validations=2, score="loss", words="loss", falls=True)
        >>> rows = [{"step": step, "loss": loss} for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0))]
        >>> patience.best(rows)["step"]
        2
    """

    validations: int
    score: str
    words: str
    falls: bool = False

    def best(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """Return the first row with the best score; None if no row has a score."""
        scored = [row for row in rows if row.get(self.score) is not None]
        better = min if self.falls else max
        return better(scored, key=lambda row: row[self.score], default=None)

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return a sentence if the run should end; otherwise ""."""
        best = self.best(rows)
        if (
            best is None
            or not self.validations
            or sum(row["step"] > best["step"] for row in rows) < self.validations
        ):
            return ""
        return (
            f"the validation {self.words} has not improved for {self.validations} validations; the weights "
            f"of the best, after step {best['step']}, are kept."
        )

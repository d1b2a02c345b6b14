"""When a run whose validations bring nothing more shall end, and which of them was the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a run goes on that gets no better.

    Attributes:
        validations: so many in a row may bring nothing; 0: any number.
        score: the number in a row of validation.jsonl by which it is judged.
        words: what the score is, for people.
        falls: whether less of it is better.
    """

    validations: int
    score: str
    words: str
    falls: bool = False

    def best(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """The first of the rows with the best score; None where none has one."""
        scored = [row for row in rows if row.get(self.score) is not None]
        better = min if self.falls else max
        return better(scored, key=lambda row: row[self.score], default=None)

    def reason_to_end(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """A sentence, once there is one."""
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

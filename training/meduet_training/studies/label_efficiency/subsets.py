"""Whose labels are learnt: patients drawn for each budget and seed.

A budget holds whole patients, and those of a smaller budget are in every larger one of the same seed. The
smallest, one shot, is what a task cannot do without: a patient for each class, often one who shows them all.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from napari_meduet.errors import InputError

ONE = "one"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many of the patients with labels are learnt from. `share` is None for one shot."""

    share: float | None

    @property
    def name(self) -> str:
        """As tables call it."""
        return "1-shot" if self.share is None else f"{100 * self.share:g} %"

    @property
    def words(self) -> str:
        """As it is asked for."""
        return ONE if self.share is None else f"{100 * self.share:g}"


def budgets_in(words: str) -> list[Budget]:
    """The budgets of `one,10,50,100`: one shot, or percent of the patients with labels; smallest first.

    Raises:
        InputError: a word is neither, or comes twice.
    """
    found = []
    for word in (word.strip() for word in words.split(",")):
        try:
            share = None if word == ONE else float(word.removesuffix("%")) / 100
        except ValueError:
            share = math.nan
        if share is not None and not 0 < share <= 1:
            raise InputError(
                f"--budgets: {word or 'an empty word'} is no budget; give one, or percent of the patients, "
                "from above 0 to 100, such as one,10,50,100."
            )
        found.append(Budget(share=share))
    if len(set(found)) < len(found):
        raise InputError(f"--budgets {words}: each budget once.")
    return sorted(found, key=lambda budget: budget.share or 0.0)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The patients of one seed in the order in which budgets take them.

    Attributes:
        least: so many the task cannot do without.
    """

    patients: tuple[str, ...]
    least: int

    def of(self, budget: Budget) -> tuple[str, ...]:
        """The patients of a budget; percentages are rounded, half a patient up."""
        share = budget.share or 0.0
        wanted = math.floor(share * len(self.patients) + 0.5)
        return self.patients[: max(wanted, self.least)]


def draw_patients(
    patients: Sequence[str],
    kinds: Sequence[str],
    shown_by: Callable[[str], AbstractSet[str]],
    seed: int,
    of_each: int = 1,
) -> Draw:
    """All patients, shuffled by the seed, those first whom the task cannot do without.

    Going through the shuffled patients, whoever shows a kind that still lacks patients is one of them.

    Args:
        kinds: what must be shown: classes.
        shown_by: the kinds in a patient's scans; asked only until there are enough.
        of_each: so many patients must show each kind.

    Raises:
        InputError: the patients do not show enough of a kind.
    """
    shuffled = sorted(patients, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    lacking = Counter(dict.fromkeys(kinds, of_each))
    first = []
    for patient in shuffled:
        if not any(lacking.values()):
            break
        own = [kind for kind in kinds if lacking[kind] and kind in shown_by(patient)]
        if own:
            first.append(patient)
            lacking.subtract(own)
    if short := [kind for kind in kinds if lacking[kind]]:
        few = "no patient" if of_each == 1 else f"fewer than {of_each} patients"
        raise InputError(
            f"{', '.join(short)}: shown by {few} to learn from; leave it out of the classes, or give scans "
            "that show it."
        )
    others = [patient for patient in shuffled if patient not in first]
    return Draw(patients=(*first, *others), least=len(first))

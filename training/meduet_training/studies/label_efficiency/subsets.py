"""Subset sampling: the patients whose labels are used, for each subset and seed.

A subset consists of whole patients. The patients of a smaller subset are in every larger subset of the same
seed. The smallest subset, one shot, has the fewest patients that a task needs: at least one for each class,
where one patient may have several classes.
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
class Subset:
    """A fraction of the labelled patients; `fraction` is None for one shot."""

    fraction: float | None

    @property
    def name(self) -> str:
        """Name in tables."""
        return "1-shot" if self.fraction is None else f"{100 * self.fraction:g} %"

    @property
    def text(self) -> str:
        """Text of the option."""
        return ONE if self.fraction is None else f"{100 * self.fraction:g}"


def parse_subsets(text: str) -> list[Subset]:
    """Parse subsets such as `one,10,50,100`: one shot, or percent of the labelled patients.

    The subsets are sorted, the smallest first.

    Raises:
        InputError: a subset is neither, or is repeated.

    Examples:
        >>> [subset.name for subset in parse_subsets("100,one")]
        ['1-shot', '100 %']
    """
    subsets = []
    for word in (word.strip() for word in text.split(",")):
        try:
            fraction = None if word == ONE else float(word.removesuffix("%")) / 100
        except ValueError:
            fraction = math.nan
        if fraction is not None and not 0 < fraction <= 1:
            raise InputError(
                f"--subsets: {word!r} is not a subset. Give `one`, or percent of the patients above 0 and "
                "up to 100, for example one,10,50,100."
            )
        subsets.append(Subset(fraction=fraction))
    if len(set(subsets)) < len(subsets):
        raise InputError(f"--subsets {text}: a subset is repeated. Name each subset once.")
    return sorted(subsets, key=lambda subset: subset.fraction or 0.0)


@dataclass(frozen=True, kw_only=True)
class NestedSubsets:
    """The patients of one seed; each subset takes the first of them.

    Attributes:
        minimum: number of patients that the task needs.
    """

    patients: tuple[str, ...]
    minimum: int

    def of(self, subset: Subset) -> tuple[str, ...]:
        """Return the patients of a subset; half a patient is rounded up."""
        count = math.floor((subset.fraction or 0.0) * len(self.patients) + 0.5)
        return self.patients[: max(count, self.minimum)]


def sample_subsets(
    patients: Sequence[str],
    classes: Sequence[str],
    classes_of: Callable[[str], AbstractSet[str]],
    seed: int,
    patients_per_class: int = 1,
) -> NestedSubsets:
    """Shuffle the patients by the seed, and move the patients that the task needs to the front.

    A patient is needed if a class in the scans of the patient has too few earlier patients.

    Args:
        classes: classes that every subset must have.
        classes_of: function that returns the classes in the scans of a patient.
        patients_per_class: number of patients that each class needs.

    Raises:
        InputError: a class has too few patients.
    """
    shuffled = sorted(patients, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    lacking = Counter(dict.fromkeys(classes, patients_per_class))
    first = []
    for patient in shuffled:
        if not any(lacking.values()):
            break
        own = [name for name in classes if lacking[name] and name in classes_of(patient)]
        if own:
            first.append(patient)
            lacking.subtract(own)
    if missing := [name for name in classes if lacking[name]]:
        found = "no patient" if patients_per_class == 1 else f"fewer than {patients_per_class} patients"
        raise InputError(
            f"{', '.join(missing)}: {found} of the train split has this class. Leave it out of the "
            "classes, or add scans with it."
        )
    others = [patient for patient in shuffled if patient not in first]
    return NestedSubsets(patients=(*first, *others), minimum=len(first))

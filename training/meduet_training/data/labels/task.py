"""The classes of a segmenter, and the scans in which each class is annotated (specification, section 10).

By default, every label name of any scan is a class. A user may join names to
classes, as in `lungs: [lung_left, lung_right]`, and leave others out: these are background.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from meduet_training.data.labels.names import BACKGROUND, IGNORE, Names
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.errors import InputError
from napari_meduet.pipelines.segmentation.training_samples import LabelMap, class_map


@dataclass(frozen=True, kw_only=True)
class LabelTask:
    """The classes, and the names that count as them.

    Attributes:
        labels: the number of each class in what the segmenter writes, that of the background, 0, first.
        sources: of each class after the background, under its name.
    """

    labels: tuple[int, ...]
    sources: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all classes, the background first."""
        return BACKGROUND, *self.sources

    def meaning(self, names: Names) -> LabelMap:
        """What the labels of a scan, of these names, mean for the task.

        A class counts as looked for where any of its names is known of the scan, present or not.
        """
        ignored = frozenset(label for label, name in names.items() if name == IGNORE)
        return replace(class_map(names, self.sources), ignored=ignored)

    def in_words(self) -> str:
        """The classes with their numbers."""
        return ", ".join(f"{label} {name}" for label, name in zip(self.labels, self.names, strict=True))


def label_task(named: Sequence[Names], classes: Mapping[str, Sequence[str]] | None = None) -> LabelTask:
    """The task of scans whose labels are named so.

    Args:
        named: of each scan that is trained on.
        classes: the names that are joined to each class, beside its own; None: each name is a class. Given
            classes are numbered in their order; others keep their numbers where all scans number alike, and
            else are numbered in the order of the alphabet.

    Raises:
        InputError: there is only background, a class is in no scan, or a name belongs to two classes.
    """
    found = {name for names in named for name in names.values()} - {BACKGROUND, IGNORE}
    if not found:
        raise InputError("The labels of these scans are 0 everywhere, so there is nothing to learn.")
    if classes is None:
        numbers = numbered(
            [(name, label) for names in named for label, name in names.items() if name in found]
        )
        task = LabelTask(labels=tuple(numbers.values()), sources={name: (name,) for name in [*numbers][1:]})
    else:
        _check_classes(classes, found)
        task = LabelTask(
            labels=tuple(range(len(classes) + 1)),
            sources={name: tuple(dict.fromkeys((name, *sources))) for name, sources in classes.items()},
        )
    if len(task.names) > IGNORED:
        raise InputError(f"There are {len(task.names) - 1} classes; a segmenter has at most {IGNORED - 1}.")
    return task


def numbered(pairs: Sequence[tuple[str, int]]) -> dict[str, int]:
    """A number for each name, that of the background, 0, first.

    The numbers are those of the pairs where these agree, and else count the names in their order.
    """
    distinct = {(name, label) for name, label in pairs if name != BACKGROUND}
    names = sorted({name for name, _ in distinct})
    if len({label for _, label in distinct}) == len(distinct) == len(names):
        return {BACKGROUND: 0} | dict(sorted(distinct, key=lambda pair: pair[1]))
    return {BACKGROUND: 0} | {name: number for number, name in enumerate(names, start=1)}


def _check_classes(classes: Mapping[str, Sequence[str]], found: set[str]) -> None:
    owner: dict[str, str] = {}
    for name, sources in classes.items():
        if name == BACKGROUND:
            raise InputError("The class background is what no other class is; leave it out of data.classes.")
        for source in (name, *sources):
            if owner.setdefault(source, name) != name:
                raise InputError(
                    f"data.classes: {source} belongs to both {owner[source]} and {name}; join it to one."
                )
        if not found & {name, *sources}:
            close = difflib.get_close_matches(sources[0], sorted(found), n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(found))}."
            raise InputError(
                f"data.classes: no scan to train on has labels called {' or '.join(sources)}, for the class "
                f"{name}; {hint}"
            )

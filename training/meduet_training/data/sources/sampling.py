"""Draws that treat every domain alike, however many volumes it has (C-12)."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor

T = TypeVar("T")


def one_of(choices: Sequence[T], generator: Generator) -> T:
    """One of them, each as likely as the others."""
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def balanced(by_label: Mapping[int, Sequence[T]], generator: Generator) -> T:
    """One of the things of a label drawn at random: the label is drawn first."""
    return one_of(by_label[one_of(list(by_label), generator)], generator)


def rows_by(labels: Tensor) -> dict[int, list[int]]:
    """The rows that carry each label."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        rows.setdefault(label, []).append(row)
    return rows

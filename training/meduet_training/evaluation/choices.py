"""Choices of the evaluations. This module does not import torch, so that `--help` opens at once."""

from typing import Literal

SplitChoice = Literal["test", "train", "all"]

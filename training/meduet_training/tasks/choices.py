"""Choices of the task configurations. This module does not import torch, so that `--help` opens at once.

`config.py` and the `config.py` of each task use them; `commands/` offers the same choices as options.
"""

from typing import Literal

PretrainingPreset = Literal["tiny", "small", "base"]
ObjectiveVersion = Literal[
    "corrected", "paper"
]  # with the corrections of docs/departures.md, or the paper's text
Pretext = Literal["meduet", "mae", "mdae", "mdae-voxel"]

GeneratorPreset = Literal["tiny", "small", "paper"]
GeneratorStart = Literal["warm", "scratch"]

FinetuningPreset = Literal["tiny", "paper"]
FinetuningStart = Literal["meduet", "scratch"]
Styles = Literal["auto", "one-shot", "tenth", "half", "all", "off"]  # columns of Table 12; auto chooses one

FinetuningTask = Literal["segmentation", "classification"]

"""Choices of the hardware configuration. This module does not import torch, so that `--help` opens at once.

`fabric.py` holds the configuration; `commands/options.py` offers the same choices on the command line.
"""

from typing import Literal

Device = Literal["auto", "cpu", "cuda"]  # `auto` chooses a GPU if there is one
Precision = Literal["auto", "bf16", "fp32"]
Strategy = Literal["ddp", "fsdp"]

"""One Fabric for every training: which device, which precision."""

import torch
from lightning_fabric import Fabric


def make_fabric(device: str = "auto") -> Fabric:
    """A launched single-process Fabric; bf16 where the hardware is fast at it, fp32 elsewhere (PERFORMANCE.md)."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported() else "32-true"
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    fabric.launch()
    return fabric

"""One Fabric for every training: which device, which precision."""

import torch
from lightning_fabric import Fabric

from napari_meduet.models.devices import choose_device


def make_fabric(device: str = "auto") -> Fabric:
    """A launched single-process Fabric; bf16 where the hardware is fast at it, fp32 elsewhere.

    Raises:
        InputError: this machine has no such device.
    """
    if device == "auto":  # never Apple's MPS, on which no training was tried
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = choose_device(device).type
    precision = "bf16-mixed" if kind == "cuda" and torch.cuda.is_bf16_supported() else "32-true"
    fabric = Fabric(accelerator=kind, devices=1, precision=precision)
    fabric.launch()
    return fabric

"""The torch device of a model. Torch is imported only when a device is chosen."""

from typing import TYPE_CHECKING, Literal, get_args

from napari_meduet.errors import InputError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[str, ...] = get_args(DeviceName)


def choose_device(name: str = "auto") -> "torch.device":
    """Return the torch device of this name. `auto` chooses the first available of CUDA, Apple's MPS and CPU.

    Raises:
        InputError: the name is unknown, or this machine has no such device.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, is_present in present.items() if is_present))
    if name not in present:
        raise InputError(f"device must be one of {', '.join(DEVICES)}; got {name!r}.")
    if not present[name]:
        raise InputError(
            f"device is {name!r}, but torch finds no such device on this machine. Use 'auto' or 'cpu'."
        )
    return torch.device(name)

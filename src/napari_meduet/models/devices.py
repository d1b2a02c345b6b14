"""Which processor a model runs on. Torch is imported only when a device is really chosen."""

from typing import TYPE_CHECKING, Literal, get_args

from napari_meduet.errors import InputError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DEVICES: tuple[str, ...] = get_args(DeviceName)


def choose_device(name: str = "auto") -> "torch.device":
    """The torch device of that name; `auto` is the first of CUDA, Apple's MPS and the CPU that is there.

    Raises:
        InputError: the device is unknown, or this machine does not have it.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, is_present in present.items() if is_present))
    if name not in present:
        raise InputError(f"device must be one of {', '.join(DEVICES)}; got {name!r}.")
    if not present[name]:
        raise InputError(f"device {name!r} was asked for, but torch finds none here. Use 'auto' or 'cpu'.")
    return torch.device(name)

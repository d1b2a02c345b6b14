"""Drop-down list of devices. torch is asked for GPUs only when the list is opened, off the GUI thread."""

from typing import Any

from napari.qt.threading import create_worker

from napari_meduet.gui.common.forms import Choice, ChoiceBox

_ALWAYS: list[Choice] = [("Automatic (GPU if any)", "auto"), ("CPU", "cpu")]


def available_gpus() -> list[Choice]:
    """Return the GPUs that torch can use, each with its name and its free memory."""
    import torch

    gpus: list[Choice] = []
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        gpus.append((f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} GB free", "cuda"))
    if torch.backends.mps.is_available():
        gpus.append(("Apple GPU (MPS)", "mps"))
    return gpus


class DeviceBox(ChoiceBox):
    """Offers "automatic" and the CPU at once, and GPUs after a search for them."""

    def __init__(self) -> None:
        super().__init__()
        self._search: Any = None
        self.setToolTip("Device that runs the network")
        self.offer(_ALWAYS, default="auto")

    def showPopup(self) -> None:  # Qt's name
        super().showPopup()
        if self._search is None:
            self._search = create_worker(available_gpus)
            self._search.returned.connect(self._add_gpus)
            self._search.start()

    def _add_gpus(self, gpus: list[Choice]) -> None:
        was_open = self.view().isVisible()
        self.offer([*_ALWAYS, *gpus])
        if was_open:
            self.showPopup()

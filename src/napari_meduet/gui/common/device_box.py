"""Chooses the processor. Torch is asked what is there only when the list is opened, off the GUI thread."""

from typing import Any

from napari.qt.threading import create_worker

from napari_meduet.gui.common.forms import Choice, ChoiceBox

_ALWAYS: list[Choice] = [("Automatic (GPU if any)", "auto"), ("CPU", "cpu")]


def gpus_here() -> list[Choice]:
    """The graphics processors torch can use, with names and free memory."""
    import torch

    found: list[Choice] = []
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        found.append((f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} GB free", "cuda"))
    if torch.backends.mps.is_available():
        found.append(("Apple GPU (MPS)", "mps"))
    return found


class DeviceBox(ChoiceBox):
    """Offers automatic and CPU at once, GPUs when it has found them."""

    def __init__(self) -> None:
        super().__init__()
        self._search: Any = None
        self.setToolTip("Where the network runs")
        self.offer(_ALWAYS, default="auto")

    def showPopup(self) -> None:  # Qt's name
        super().showPopup()
        if self._search is None:
            self._search = create_worker(gpus_here)
            self._search.returned.connect(self._found_gpus)
            self._search.start()

    def _found_gpus(self, gpus: list[Choice]) -> None:
        was_open = self.view().isVisible()
        self.offer([*_ALWAYS, *gpus])
        if was_open:
            self.showPopup()

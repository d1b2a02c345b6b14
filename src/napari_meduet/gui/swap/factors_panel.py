"""Buttons that extract the factors of scans or make a style prototype, and save them to a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QWidget

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.gui.common.background import Problem
from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.layers import is_original_scan, scan_of
from napari_meduet.gui.swap.form import SwapForm
from napari_meduet.pipelines.requests import ExtractRequest, PrototypeRequest

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_meduet.pipelines.factors import FactorsResult, PrototypeResult

# Signature of `Dock.start`: title, call, and the function that receives the call's result
Start = Callable[[str, Callable[[OnProgress], Any], Callable[[Any], None]], None]


def extract_and_save(request: ExtractRequest, path: Path, on_progress: OnProgress) -> "FactorsResult":
    """Extract factors, save them to a file and return them. The file dialog confirms overwriting."""
    from napari_meduet.pipelines.factors import extract

    result = extract(request, on_progress)
    result.save(path, overwrite=True)
    return result


def make_and_save(request: PrototypeRequest, path: Path, on_progress: OnProgress) -> "PrototypeResult":
    """Make a style prototype, save it to a file and return it."""
    from napari_meduet.pipelines.factors import make_prototype

    result = make_prototype(request, on_progress)
    result.save(path, overwrite=True)
    return result


class FactorsPanel(QWidget):
    """Two buttons for the scans selected in the layer list, and a summary of the latest result."""

    def __init__(
        self, viewer: "ViewerModel", form: SwapForm, start: Start, show_problem: Callable[[Problem], None]
    ) -> None:
        super().__init__()
        self._layers, self._form, self._start, self._show_problem = viewer.layers, form, start, show_problem
        self.extract = QPushButton("Extract factors…")
        self.extract.setToolTip("Save content and style factors of the selected scans (.safetensors)")
        self.prototype = QPushButton("Save prototype…")
        self.prototype.setToolTip(
            "Save the mean style of the selected scans (.style: a few kB, no image data)"
        )
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        fill_column(self, self.extract, self.prototype, self.summary)
        self.extract.clicked.connect(self._extract)
        self.prototype.clicked.connect(self._make_prototype)

    def selected(self) -> "list[Layer]":
        """Return the selected layers that are original scans; without any, the content scan."""
        selected = [layer for layer in self._layers.selection if is_original_scan(layer)]
        content = self._form.content.value()
        return selected or ([content] if content is not None else [])

    def _extract(self) -> None:
        path = self._ask_path("Factors", "factors.safetensors")
        if path is not None:
            self._start_with(ExtractRequest, path, extract_and_save, _factors_summary)

    def _make_prototype(self) -> None:
        path = self._ask_path("Style prototype", "site.style")
        if path is not None:
            self._start_with(PrototypeRequest, path, make_and_save, _prototype_summary)

    def _ask_path(self, kind: str, default: str) -> Path | None:
        suffix = Path(default).suffix
        chosen, _ = QFileDialog.getSaveFileName(self, f"Save {kind.lower()}", default, f"{kind} (*{suffix})")
        return Path(chosen).with_suffix(suffix) if chosen else None

    def _start_with(
        self,
        request_type: type[ExtractRequest | PrototypeRequest],
        path: Path,
        compute: Callable,
        summarise: Callable[[Any, Path], str],
    ) -> None:
        try:
            scans = tuple(scan_of(layer) for layer in self.selected())
            request = request_type(
                scans=scans, model=self._form.model.path(), device=self._form.device.value()
            )
        except InputError as error:
            self._show_problem(Problem(str(error)))
            return
        call = partial(compute, request, path)
        self._start("Extracting factors", call, lambda result: self.summary.setText(summarise(result, path)))


def _factors_summary(result: "FactorsResult", path: Path) -> str:
    lines = [f"Saved to {path.name}:"]
    for number, scan in enumerate(result.scans, start=1):
        grid = " × ".join(map(str, scan.coverage.shape))
        lines.append(
            f"scan {number}: content of {scan.content.size} numbers, style of {scan.style.size}, "
            f"{grid} tokens, body fraction {scan.coverage.mean():.0%}."
        )
    return "\n".join(lines)


def _prototype_summary(result: "PrototypeResult", path: Path) -> str:
    scans = "1 scan" if result.style.num_scans == 1 else f"{result.style.num_scans} scans"
    kilobytes = path.stat().st_size / 1e3
    return f"Saved the {result.style.modality} style of {scans} to {path.name} ({kilobytes:.0f} kB)."

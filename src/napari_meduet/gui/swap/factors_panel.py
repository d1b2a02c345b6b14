"""Factors of scans and prototypes of sites: asked for here, computed where every job is, saved to a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.gui.common.background import Problem
from napari_meduet.gui.layers import is_scan, is_synthetic, scan_of
from napari_meduet.gui.swap.form import SwapForm
from napari_meduet.pipelines.requests import ExtractRequest, PrototypeRequest

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_meduet.pipelines.factors import FactorsResult, PrototypeResult

# starts a job: what to call it, what to compute, what to do with the result
Start = Callable[[str, Callable[[OnProgress], Any], Callable[[Any], None]], None]


def extract_and_save(request: ExtractRequest, path: Path, on_progress: OnProgress) -> "FactorsResult":
    """The factors, once they are in their file; napari's dialog has asked before replacing one."""
    from napari_meduet.pipelines.factors import extract

    result = extract(request, on_progress)
    result.save(path, overwrite=True)
    return result


def make_and_save(request: PrototypeRequest, path: Path, on_progress: OnProgress) -> "PrototypeResult":
    """The prototype, once it is in its file."""
    from napari_meduet.pipelines.factors import make_prototype

    result = make_prototype(request, on_progress)
    result.save(path, overwrite=True)
    return result


class FactorsPanel(QWidget):
    """Two buttons about the scans selected in the layer list, and what came of the last one pressed."""

    def __init__(
        self, viewer: "ViewerModel", form: SwapForm, start: Start, complain: Callable[[Problem], None]
    ) -> None:
        super().__init__()
        self._layers, self._form, self._start, self._complain = viewer.layers, form, start, complain
        self.extract = QPushButton("Extract factors…")
        self.extract.setToolTip("Save content and style factors of the selected scans (.safetensors)")
        self.prototype = QPushButton("Save prototype…")
        self.prototype.setToolTip(
            "Save the style that the selected scans share: a few kB that hold no image (.style)"
        )
        self.outcome = QLabel()
        self.outcome.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.extract, self.prototype, self.outcome):
            column.addWidget(widget)
        self.extract.clicked.connect(self._extract)
        self.prototype.clicked.connect(self._make_prototype)

    def selected(self) -> "list[Layer]":
        """The scans selected in the layer list that no model made; else the content."""
        selected = [layer for layer in self._layers.selection if is_scan(layer) and not is_synthetic(layer)]
        content = self._form.content.value()
        return selected or ([content] if content is not None else [])

    def _extract(self) -> None:
        path = self._ask_path("Factors", "factors.safetensors")
        if path is not None:
            self._start_with(ExtractRequest, path, extract_and_save, _told_factors)

    def _make_prototype(self) -> None:
        path = self._ask_path("Style prototype", "site.style")
        if path is not None:
            self._start_with(PrototypeRequest, path, make_and_save, _told_prototype)

    def _ask_path(self, what: str, proposal: str) -> Path | None:
        suffix = Path(proposal).suffix
        chosen, _ = QFileDialog.getSaveFileName(self, f"Save {what.lower()}", proposal, f"{what} (*{suffix})")
        return Path(chosen).with_suffix(suffix) if chosen else None

    def _start_with(
        self,
        question: type[ExtractRequest | PrototypeRequest],
        path: Path,
        answer: Callable,
        tell: Callable[[Any, Path], str],
    ) -> None:
        try:
            scans = tuple(scan_of(layer) for layer in self.selected())
            request = question(scans=scans, model=self._form.model.path(), device=self._form.device.value())
        except InputError as error:
            self._complain(Problem(str(error)))
            return
        compute = partial(answer, request, path)
        self._start("Extracting factors", compute, lambda result: self.outcome.setText(tell(result, path)))


def _told_factors(result: "FactorsResult", path: Path) -> str:
    lines = [f"Saved to {path.name}:"]
    for number, scan in enumerate(result.scans, start=1):
        grid = " × ".join(map(str, scan.coverage.shape))
        lines.append(
            f"scan {number}: content of {scan.content.size} numbers, style of {scan.style.size}, "
            f"{grid} tokens, {scan.coverage.mean():.0%} of them body."
        )
    return "\n".join(lines)


def _told_prototype(result: "PrototypeResult", path: Path) -> str:
    scans = "1 scan" if result.style.num_scans == 1 else f"{result.style.num_scans} scans"
    kilobytes = path.stat().st_size / 1e3
    return f"Saved the {result.style.modality} style of {scans} to {path.name} ({kilobytes:.0f} kB)."

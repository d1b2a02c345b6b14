"""Teach: a few painted scans, a network that learns from them in sight, and what it is used for.

Painted labels are copied when Train is pressed: what is painted or undone later does not reach the lesson.
"""

from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info
from qtpy.QtCore import Slot
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_meduet.gui.common.background import Problem, Relay
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.layers import scan_later, to_voxels
from napari_meduet.gui.segmentation.results import show_segmentation
from napari_meduet.gui.segmentation.teach.curve import TeachCurve
from napari_meduet.gui.segmentation.teach.form import TeachForm
from napari_meduet.gui.segmentation.teach.jobs import (
    apply_to_folder,
    apply_to_scans,
    save_model,
    teach_examples,
)
from napari_meduet.gui.segmentation.teach.use import TeachUse, ask_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_meduet.gui.common.device_box import DeviceBox
    from napari_meduet.gui.common.model_box import ModelBox
    from napari_meduet.gui.segmentation.teach.jobs import ScanLater
    from napari_meduet.pipelines.segmentation.finetuned import Taught, TaughtSoFar
    from napari_meduet.pipelines.segmentation.folder import FolderReport
    from napari_meduet.pipelines.segmentation.session import SegmentationResult

NOTHING_LEARNT = "Train first: then it can be applied, and saved."
NO_OTHERS = "No other scan is open: open one, or apply to a folder."


class TeachPanel(QWidget):
    """The page of the dock that teaches; its jobs are the dock's."""

    def __init__(
        self,
        viewer: "Viewer",
        model: "ModelBox",
        device: "DeviceBox",
        start: "Callable[..., None]",
        show_problem: "Callable[[Problem], None]",
    ) -> None:
        """
        Args:
            start: has a call run on a worker thread, as `Dock.start`.
        """
        super().__init__()
        self._viewer, self._model, self._device = viewer, model, device
        self._start, self._show_problem = start, show_problem
        self._taught: Taught | None = None
        self._taught_with: list[Any] = []  # the scans' layers
        self._stop = Event()
        self._points, self._results = Relay(), Relay()
        self._targets: list[tuple[Layer, str]] = []  # scans that are segmented, and their names before
        self.done = ""  # what to say of the last job
        self.form = TeachForm(viewer, model)
        self.train = RunBar("Train", on_cancel="what was learnt is forgotten")
        self.stop = QPushButton("Stop and keep")
        self.stop.setToolTip("Good enough: end here, and keep what was learnt")
        self.stop.setVisible(False)
        self.curve = TeachCurve()
        self.told = QLabel()
        self.told.setVisible(False)
        self.use = TeachUse(viewer)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.form, self.train, self.stop, self.curve, self.told, self.use):
            column.addWidget(part)
        self.train.run_pressed.connect(self._train)
        self.stop.clicked.connect(self._stop_and_keep)
        self.use.apply.run_pressed.connect(self._apply)
        self.use.model_wanted.connect(self._save)
        self._points.sent.connect(self._show_point)
        self._results.sent.connect(self._show_result)

    # What stands in the way of each button

    def disabled_reason(self) -> str:
        """Why nothing can be learnt yet."""
        return self.form.disabled_reason()

    def apply_obstacle(self) -> str:
        """Why nothing can be applied yet."""
        if self._taught is None:
            return NOTHING_LEARNT
        return "" if self.use.folder() or self._others() else NO_OTHERS

    def offer(self, is_busy: bool, is_training: bool) -> None:
        """Enable what can be asked for now."""
        self.form.setEnabled(not is_busy)
        self.use.scans.setEnabled(not is_busy)
        if not is_training:
            self.stop.setVisible(False)
        self.use.save.setEnabled(self._taught is not None and not is_busy)

    # A lesson, from the press to what was learnt

    def _train(self) -> None:
        self.form.examples.keep()
        pairs = self.form.examples.pairs()
        names = self.form.names
        background = names.background() if self.form.unpainted.value() else None
        examples = [(scan_later(scan), to_voxels(np.array(labels.data))) for scan, labels in pairs]
        options = {
            "steps": self.form.steps.value(),
            "model": self._model.path(),
            "device": self._device.value(),
        }
        self.curve.clear()
        self.told.setVisible(False)
        self._stop = Event()
        call = partial(
            teach_examples, examples, names.names(), background, options, self._stop, self._points.send
        )
        learnt = partial(self._learnt, [scan for scan, _ in pairs])
        self._start("Teaching", call, learnt, self.train)

    def _stop_and_keep(self) -> None:
        self._stop.set()
        self.stop.setVisible(False)

    @Slot(object)
    def _show_point(self, point: "TaughtSoFar") -> None:
        self.curve.add(point)
        self.stop.setVisible(not self._stop.is_set())
        self.told.setText(self.curve.summary())
        self.told.setVisible(True)

    def _learnt(self, scans: list[Any], taught: "Taught") -> None:
        self._taught, self._taught_with = taught, scans
        self.done = "Learnt. Apply it to another scan to see how well."

    # What was learnt, used

    def _apply(self) -> None:
        assert self._taught is not None
        folder = self.use.folder()
        if folder is not None:
            target = ask_folder(self, "Folder for the labels", folder)
            if target is not None:
                call = partial(apply_to_folder, self._taught, folder, target)
                self._start("Segmenting a folder", call, self._folder_done, self.use.apply)
            return
        targets = self._others()
        self._targets = [(layer, layer.name) for layer in targets]
        scans: list[ScanLater] = [scan_later(layer) for layer in targets]
        call = partial(apply_to_scans, self._taught, scans, self._results.send)
        self._start("Segmenting", call, self._applied, self.use.apply)

    @Slot(object)
    def _show_result(self, numbered: "tuple[int, SegmentationResult]") -> None:
        number, result = numbered
        scan, name = self._targets[number]
        show_segmentation(self._viewer, result, f"{name} ▸ taught", scan)
        self.done = f"{number + 1} of {len(self._targets)} scans are done."

    def _applied(self, failed: dict[int, str]) -> None:
        self.done = f"{len(self._targets) - len(failed)} of {len(self._targets)} scans have labels now."
        self._tell({self._targets[number][1]: sentence for number, sentence in failed.items()})

    def _others(self) -> "list[Layer]":
        """The open scans it can be applied to."""
        assert self._taught is not None
        return self.use.targets(self._taught_with, self._taught.modalities)

    def _folder_done(self, report: "FolderReport") -> None:
        self.done = f"{len(report.written)} written"
        if report.skipped:
            self.done += f", {len(report.skipped)} there already"
        if report.failed:
            self.done += f", {len(report.failed)} failed"
        self._tell(report.failed)

    def _tell(self, failed: "Mapping[str, str]") -> None:
        """Say which scans have no labels, and why."""
        lines = [f"{name}: {sentence}" for name, sentence in failed.items()]
        if lines:
            more = f" ({len(lines) - 1} more in the details)" if len(lines) > 1 else ""
            self._show_problem(Problem(f"No labels for {lines[0]}{more}", "\n".join(lines[1:])))

    def _save(self, folder: Path) -> None:
        assert self._taught is not None
        self._start(
            "Saving the model", partial(save_model, self._taught, folder), self._saved, self.use.apply
        )

    def _saved(self, folder: Path) -> None:
        self._model.choose(folder)
        self.done = "Saved, and chosen as model."
        show_info(f"The model is in {folder}.")

    def forget(self) -> None:
        """Let go of what was learnt; it holds a network."""
        self._taught, self._taught_with = None, []
        self._stop.set()
        for row in self.form.examples.rows:
            row.closed()

"""The page "Teach" of the segmentation dock: fine-tune a segmenter on a few painted scans and apply it.

Labels are copied when the user presses Train, so that later painting does not change the running training.
"""

from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import Slot
from qtpy.QtWidgets import QLabel, QPushButton, QWidget

from napari_meduet.gui.common.background import Problem, Relay
from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.layers import labels_on, scan_later
from napari_meduet.gui.segmentation.results import show_segmentation
from napari_meduet.gui.segmentation.teach.apply_panel import ApplyPanel, ask_folder
from napari_meduet.gui.segmentation.teach.curve import TrainingCurve
from napari_meduet.gui.segmentation.teach.form import FinetuningForm
from napari_meduet.gui.segmentation.teach.jobs import (
    apply_to_folder,
    apply_to_scans,
    finetune_on_samples,
    save_model,
)

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

NOT_TRAINED = "Train first; then you can apply and save the result."
NO_OTHERS = "No other scan is open: open one, or apply to a folder."


class FinetuningPanel(QWidget):
    """The page itself. The dock runs its jobs."""

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
            start: Runs a call on a worker thread, as `Dock.start` does.
            show_problem: Shows a problem to the user, as `Dock.show_problem` does.
        """
        super().__init__()
        self._viewer, self._model, self._device = viewer, model, device
        self._start, self._show_problem = start, show_problem
        self._segmenter: Taught | None = None
        self._training_scans: list[Any] = []  # layers
        self._stop = Event()
        self._points, self._results = Relay(), Relay()
        self._targets: list[tuple[Layer, str]] = []  # scans to segment, and their names at the start
        self.done = ""  # status text after the latest job
        self.form = FinetuningForm(viewer, model)
        self.train = RunBar("Train", on_cancel="this training is discarded")
        self.stop = QPushButton("Stop and keep")
        self.stop.setToolTip("End the training now and keep its result")
        self.stop.setVisible(False)
        self.curve = TrainingCurve()
        self.summary = QLabel()
        self.summary.setVisible(False)
        self.apply_panel = ApplyPanel(viewer)
        fill_column(self, self.form, self.train, self.stop, self.curve, self.summary, self.apply_panel)
        self.train.run_pressed.connect(self._train)
        self.stop.clicked.connect(self._stop_and_keep)
        self.apply_panel.apply.run_pressed.connect(self._apply)
        self.apply_panel.save_requested.connect(self._save)
        self._points.sent.connect(self._show_point)
        self._results.sent.connect(self._show_result)

    # State of the buttons

    def disabled_reason(self) -> str:
        """Return why the training cannot start; empty if it can."""
        return self.form.disabled_reason()

    def apply_disabled_reason(self) -> str:
        """Return why Apply is disabled; empty if it is enabled."""
        if self._segmenter is None:
            return NOT_TRAINED
        return "" if self.apply_panel.folder() or self._others() else NO_OTHERS

    def offer(self, is_busy: bool, is_training: bool) -> None:
        """Enable the widgets that can be used now."""
        self.form.setEnabled(not is_busy)
        self.apply_panel.scans.setEnabled(not is_busy)
        if not is_training:
            self.stop.setVisible(False)
        self.apply_panel.save.setEnabled(self._segmenter is not None and not is_busy)

    # A training, from the button to its result

    def _train(self) -> None:
        self.form.samples.keep()
        pairs = self.form.samples.pairs()
        names = self.form.names
        background = names.background() if self.form.unpainted.value() else None
        examples = [(scan_later(scan), labels_on(labels, scan).copy()) for scan, labels in pairs]
        options = {
            "steps": self.form.steps.value(),
            "model": self._model.path(),
            "device": self._device.value(),
        }
        self.curve.clear()
        self.summary.setVisible(False)
        self._stop = Event()
        call = partial(
            finetune_on_samples, examples, names.names(), background, options, self._stop, self._points.send
        )
        use = partial(self._trained, [scan for scan, _ in pairs])
        self._start("Training", call, use, self.train)

    def _stop_and_keep(self) -> None:
        self._stop.set()
        self.stop.setVisible(False)

    @Slot(object)
    def _show_point(self, point: "TaughtSoFar") -> None:
        self.curve.add(point)
        self.stop.setVisible(not self._stop.is_set())
        self.summary.setText(self.curve.summary())
        self.summary.setVisible(True)

    def _trained(self, scans: list[Any], segmenter: "Taught") -> None:
        self._segmenter, self._training_scans = segmenter, scans
        self.done = "Trained. Apply it to another scan to check the result."

    # Use of the fine-tuned segmenter

    def _apply(self) -> None:
        assert self._segmenter is not None
        folder = self.apply_panel.folder()
        if folder is not None:
            target = ask_folder(self, "Folder for the labels", folder)
            if target is not None:
                call = partial(apply_to_folder, self._segmenter, folder, target)
                self._start("Segmenting a folder", call, self._folder_done, self.apply_panel.apply)
            return
        targets = self._others()
        self._targets = [(layer, layer.name) for layer in targets]
        scans: list[ScanLater] = [scan_later(layer) for layer in targets]
        call = partial(apply_to_scans, self._segmenter, scans, self._results.send)
        self._start("Segmenting", call, self._applied, self.apply_panel.apply)

    @Slot(object)
    def _show_result(self, numbered: "tuple[int, SegmentationResult]") -> None:
        number, result = numbered
        scan, name = self._targets[number]
        show_segmentation(self._viewer, result, f"{name} ▸ fine-tuned", scan)
        self.done = f"{number + 1} of {len(self._targets)} scans are done."

    def _applied(self, failed: dict[int, str]) -> None:
        self.done = f"{len(self._targets) - len(failed)} of {len(self._targets)} scans have labels now."
        self._report_failures({self._targets[number][1]: sentence for number, sentence in failed.items()})

    def _others(self) -> "list[Layer]":
        """Return the open scans to which the segmenter can be applied."""
        assert self._segmenter is not None
        return self.apply_panel.targets(self._training_scans, self._segmenter.modalities)

    def _folder_done(self, report: "FolderReport") -> None:
        self.done = f"{len(report.written)} written"
        if report.skipped:
            self.done += f", {len(report.skipped)} skipped because they exist"
        if report.failed:
            self.done += f", {len(report.failed)} failed"
        self._report_failures(report.failed)

    def _report_failures(self, failed: "Mapping[str, str]") -> None:
        """Show which scans could not be segmented, and the reasons."""
        lines = [f"{name}: {sentence}" for name, sentence in failed.items()]
        if lines:
            more = f" ({len(lines) - 1} more in the details)" if len(lines) > 1 else ""
            self._show_problem(Problem(f"No labels for {lines[0]}{more}", "\n".join(lines[1:])))

    def _save(self, folder: Path) -> None:
        assert self._segmenter is not None
        self._start(
            "Saving the model",
            partial(save_model, self._segmenter, folder),
            self._saved,
            self.apply_panel.apply,
        )

    def _saved(self, folder: Path) -> None:
        self._model.choose(folder)
        self.done = "Saved and chosen as the model."
        show_info(f"The model was saved in {folder}.")

    def forget(self) -> None:
        """Free the fine-tuned network and stop counting labels."""
        self._segmenter, self._training_scans = None, []
        self._stop.set()
        for row in self.form.samples.rows:
            row.closed()

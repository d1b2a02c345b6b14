"""The dock "MeDUET segmentation": segment a scan, or fine-tune a model for new structures.

The pages "Segment" and "Teach" share the model, the device and the table of structures. Every result is a new
layer; existing layers are not changed.
"""

from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QLabel, QTabBar, QWidget

from napari_meduet.errors import InputError
from napari_meduet.gui.common.device_box import DeviceBox
from napari_meduet.gui.common.dock import Dock
from napari_meduet.gui.common.forms import fill_column, rows
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.layers import scan_later
from napari_meduet.gui.segmentation.form import SegmentationForm
from napari_meduet.gui.segmentation.jobs import segment_scan
from napari_meduet.gui.segmentation.results import show_segmentation
from napari_meduet.gui.segmentation.structures_panel import StructuresPanel
from napari_meduet.gui.segmentation.teach.panel import FinetuningPanel

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_meduet.pipelines.segmentation.session import SegmentationResult

SEGMENT, TEACH = 0, 1  # pages
_MAX_NAMED = 8  # class names in the label; its tooltip lists all of them


class SegmentationWidget(Dock):
    """Segment a scan, or fine-tune a model for new structures."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(RunBar("Run segmentation"))
        self._viewer = napari_viewer
        self.model, self.device = ModelBox(), DeviceBox()
        self.knows = QLabel()
        self.knows.setWordWrap(True)
        self.form = SegmentationForm(napari_viewer, self.model, self.device)
        self.teach_page = FinetuningPanel(
            napari_viewer, self.model, self.device, self.start, self.show_problem
        )
        self.structures = StructuresPanel(napari_viewer)
        self.pages = QTabBar()
        self.pages.addTab("Segment")
        self.pages.addTab("Teach")
        self.pages.setExpanding(True)
        self._segment_page = fill_column(QWidget(), self.knows, self.form, self.run)
        choices = QWidget()
        choices.setLayout(rows(("Model", self.model), ("Device", self.device)))
        self.scroll(choices, self.pages, self._segment_page, self.teach_page, self.notice, self.structures)
        self.add_bar(self.teach_page.train, self.teach_page.disabled_reason)
        self.add_bar(self.teach_page.apply_panel.apply, self.teach_page.apply_disabled_reason)
        self.pages.currentChanged.connect(self._show_page)
        self.model.changed.connect(self._model_changed)
        self.form.changed.connect(self.rest)
        self.teach_page.form.changed.connect(self.rest)
        self.teach_page.apply_panel.scans.changed.connect(self.rest)
        self.run.run_pressed.connect(self._run)
        self._show_page(SEGMENT)
        self._model_changed()
        self.job_ended()

    def _show_page(self, page: int) -> None:
        self._segment_page.setVisible(page == SEGMENT)
        self.teach_page.setVisible(page == TEACH)

    def _model_changed(self) -> None:
        names = self._class_names()
        self.knows.setVisible(bool(names))
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        self.knows.setText(f"Finds {', '.join(names[:_MAX_NAMED])}{more}.")
        self.knows.setToolTip(", ".join(names))
        self.rest()

    def _class_names(self) -> list[str]:
        """Return the names of the structures that the model's segmenter finds."""
        try:
            segmenter = self.model.card().segmenter
        except InputError:
            return []  # the form shows this error
        return [] if segmenter is None else [each.name for each in segmenter.classes[1:]]

    # A run, from the button to the layer

    def _run(self) -> None:
        scan = self.form.scan.value()
        self.form.scan.keep()
        call = partial(segment_scan, scan_later(scan), self.form.options())
        self.start("Segmentation", call, partial(self._show, scan, scan.name))

    def _show(self, scan: "Layer", name: str, result: "SegmentationResult") -> None:
        show_segmentation(self._viewer, result, f"{name} ▸ structures", scan)
        found = sum(volume > 0 for volume in result.volumes_ml.values())
        self._done = "\n".join([f"Done: {found} of {len(result.names)} structures found.", *result.warnings])
        if scan not in self._viewer.layers:
            show_info("The scan's layer was removed; its structures were added at the scan's position.")

    # Methods of the base class

    def disabled_reason(self) -> str:
        """Return why a segmentation cannot run; empty if it can."""
        return self.form.disabled_reason()

    def job_began(self) -> None:
        """Disable everything except Cancel and "Stop and keep"."""
        for part in (self.model, self.device, self.form):
            part.setEnabled(False)
        self.teach_page.offer(is_busy=True, is_training=self._running is self.teach_page.train)

    def job_ended(self) -> None:
        """Enable the forms and the buttons that can be used now."""
        for part in (self.model, self.device, self.form):
            part.setEnabled(True)
        self.teach_page.offer(is_busy=False, is_training=False)
        if self._running is not self.run:
            self._done = self.teach_page.done or self._done
        self.teach_page.done = ""

    def closed(self) -> None:
        """Free the fine-tuned network and stop counting labels."""
        self.teach_page.forget()
        self.structures.closed()

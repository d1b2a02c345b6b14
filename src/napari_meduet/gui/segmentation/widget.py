"""The dock "MeDUET segmentation": the structures in a scan, and teaching a model those it does not know.

Two pages share the model, the device and the table of what the selected segmentation holds. Every result is a
new layer; no layer that was there is changed.
"""

from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QLabel, QTabBar, QVBoxLayout, QWidget

from napari_meduet.errors import InputError
from napari_meduet.gui.common.device_box import DeviceBox
from napari_meduet.gui.common.dock import Dock
from napari_meduet.gui.common.forms import rows
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.layers import scan_later
from napari_meduet.gui.segmentation.form import SegmentationForm
from napari_meduet.gui.segmentation.jobs import segment_scan
from napari_meduet.gui.segmentation.results import show_segmentation
from napari_meduet.gui.segmentation.structures_panel import StructuresPanel
from napari_meduet.gui.segmentation.teach.panel import TeachPanel

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

    from napari_meduet.pipelines.segmentation.session import SegmentationResult

SEGMENT, TEACH = 0, 1  # pages
_MOST_NAMED = 8  # classes of a model that are named; a tool tip has them all


class SegmentationWidget(Dock):
    """Find structures in a scan, or teach a model to."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(RunBar("Run segmentation"))
        self._viewer = napari_viewer
        self.model, self.device = ModelBox(), DeviceBox()
        self.knows = QLabel()
        self.knows.setWordWrap(True)
        self.form = SegmentationForm(napari_viewer, self.model, self.device)
        self.teach = TeachPanel(napari_viewer, self.model, self.device, self.start, self.show_problem)
        self.structures = StructuresPanel(napari_viewer)
        self.pages = QTabBar()
        self.pages.addTab("Segment")
        self.pages.addTab("Teach")
        self.pages.setExpanding(True)
        self._segment_page = _column(self.knows, self.form, self.run)
        choices = QWidget()
        choices.setLayout(rows(("Model", self.model), ("Device", self.device)))
        self.scroll(choices, self.pages, self._segment_page, self.teach, self.notice, self.structures)
        self.add_bar(self.teach.train, self.teach.disabled_reason)
        self.add_bar(self.teach.use.apply, self.teach.apply_obstacle)
        self.pages.currentChanged.connect(self._turn_to)
        self.model.changed.connect(self._model_changed)
        self.form.changed.connect(self.rest)
        self.teach.form.changed.connect(self.rest)
        self.teach.use.scans.changed.connect(self.rest)
        self.run.run_pressed.connect(self._run)
        self._turn_to(SEGMENT)
        self._model_changed()
        self.job_ended()

    def _turn_to(self, page: int) -> None:
        self._segment_page.setVisible(page == SEGMENT)
        self.teach.setVisible(page == TEACH)

    def _model_changed(self) -> None:
        names = self._known()
        self.knows.setVisible(bool(names))
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        self.knows.setText(f"Knows {', '.join(names[:_MOST_NAMED])}{more}.")
        self.knows.setToolTip(", ".join(names))
        self.rest()

    def _known(self) -> list[str]:
        """The structures that the model finds."""
        try:
            segmenter = self.model.card().segmenter
        except InputError:
            return []  # the form says so
        return [] if segmenter is None else [each.name for each in segmenter.classes[1:]]

    # A run, from the press to the layer

    def _run(self) -> None:
        scan = self.form.scan.value()
        self.form.scan.choose(scan)  # stay with it although others may come
        call = partial(segment_scan, scan_later(scan), self.form.options())
        self.start("Segmentation", call, partial(self._show, scan, scan.name))

    def _show(self, scan: "Layer", name: str, result: "SegmentationResult") -> None:
        show_segmentation(self._viewer, result, f"{name} ▸ structures", scan)
        found = sum(volume > 0 for volume in result.volumes_ml.values())
        self._done = "\n".join([f"Done: {found} of {len(result.names)} structures found.", *result.warnings])
        if scan not in self._viewer.layers:
            show_info(
                "The scan's layer is no longer here; its structures were placed where the scan had been."
            )

    # What a dock is asked

    def disabled_reason(self) -> str:
        """What the form still misses."""
        return self.form.disabled_reason()

    def job_began(self) -> None:
        """Everything but Cancel, and what ends a lesson."""
        for part in (self.model, self.device, self.form):
            part.setEnabled(False)
        self.teach.offer(is_busy=True, is_training=self._running is self.teach.train)

    def job_ended(self) -> None:
        """Everything that can be asked for now."""
        for part in (self.model, self.device, self.form):
            part.setEnabled(True)
        self.teach.offer(is_busy=False, is_training=False)
        if self._running is not self.run:
            self._done = self.teach.done or self._done
        self.teach.done = ""

    def closed(self) -> None:
        """What was learnt is a network; nothing is counted any more."""
        self.teach.forget()
        self.structures.closed()


def _column(*parts: QWidget) -> QWidget:
    inner = QWidget()
    column = QVBoxLayout(inner)
    column.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        column.addWidget(part)
    return inner

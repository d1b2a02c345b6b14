"""Keep the label counts of a layer up to date while the user paints on it. A worker thread counts."""

from typing import Any

import numpy as np
from napari.layers import Labels
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from napari_meduet.gui.common.background import delayed
from napari_meduet.gui.common.label_counts import LabelCount, count_labels

COUNT_AFTER_MS = 400  # after the latest brush stroke


class LabelCounter(QObject):
    """Emits `counted` after each count: of a new layer, or of the same layer after painting."""

    counted = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.layer: Labels | None = None
        self.counts: dict[int, LabelCount] = {}
        self._counting: Any = None
        self._is_painted = False  # once the layer was painted on, undo can change it as well
        self._soon = delayed(self._count, COUNT_AFTER_MS, self)

    @property
    def is_counting(self) -> bool:
        """Whether a count is running or scheduled."""
        return self._counting is not None or self._soon.isActive()

    def follow(self, layer: Labels | None) -> None:
        """Count the labels of this layer from now on; None stops counting."""
        if layer is self.layer:
            return
        if self.layer is not None:
            self.layer.events.paint.disconnect(self._painted)
            self.layer.events.data.disconnect(self._painted)
            self.layer.events.set_data.disconnect(self._drawn)
        self.layer, self.counts, self._is_painted = layer, {}, False
        self._soon.stop()
        if layer is not None:
            layer.events.paint.connect(self._painted)
            layer.events.data.connect(self._painted)
            layer.events.set_data.connect(self._drawn)
            self._count()

    def _painted(self) -> None:
        self._is_painted = True
        self._soon.start()

    def _drawn(self) -> None:
        if self._is_painted:
            self._soon.start()

    def _count(self) -> None:
        if self.layer is None:
            return
        if self._counting is not None:
            self._soon.start()  # try again after the current count
            return
        layer = self.layer
        self._counting = create_worker(count_labels, np.asarray(layer.data))
        self._counting.returned.connect(lambda counts: self._take(layer, counts))
        self._counting.finished.connect(self._rest)
        self._counting.start()

    def _rest(self) -> None:
        self._counting = None

    def _take(self, layer: Labels, counts: dict[int, LabelCount]) -> None:
        self._rest()
        if layer is self.layer:
            self.counts = counts
            self.counted.emit()

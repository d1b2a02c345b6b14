"""Keeps count of the labels in a layer while somebody paints on it; another thread does the counting."""

from typing import Any

import numpy as np
from napari.layers import Labels
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, QTimer, Signal

from napari_meduet.gui.segmentation.label_places import LabelPlace, label_places

COUNT_AFTER_MS = 400  # once the brush rests


class LabelWatch(QObject):
    """Emits `counted` when it follows another layer, and when that was painted on."""

    counted = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.layer: Labels | None = None
        self.places: dict[int, LabelPlace] = {}  # of the layer's labels, by number
        self._counting: Any = None
        self._is_painted = False  # since it is followed; from then on undo may change it too
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(COUNT_AFTER_MS)
        self._soon.timeout.connect(self._count)

    @property
    def is_counting(self) -> bool:
        """Whether another count will come."""
        return self._counting is not None or self._soon.isActive()

    def follow(self, layer: Labels | None) -> None:
        """Keep count of this layer from now on; None: of none."""
        if layer is self.layer:
            return
        if self.layer is not None:
            self.layer.events.paint.disconnect(self._painted)
            self.layer.events.data.disconnect(self._painted)
            self.layer.events.set_data.disconnect(self._drawn)
        self.layer, self.places, self._is_painted = layer, {}, False
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
            self._soon.start()  # once that is done
            return
        layer = self.layer
        self._counting = create_worker(label_places, np.asarray(layer.data))
        self._counting.returned.connect(lambda places: self._take(layer, places))
        self._counting.finished.connect(self._rest)
        self._counting.start()

    def _rest(self) -> None:
        self._counting = None

    def _take(self, layer: Labels, places: dict[int, LabelPlace]) -> None:
        self._rest()
        if layer is self.layer:
            self.places = places
            self.counted.emit()

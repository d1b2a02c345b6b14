"""The controls a swap request is filled from: layers, prototype files, model, device, strength.

Each is one small Qt widget that knows what it offers and emits `changed`. None reads a scan or loads a model.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QSizePolicy,
    QSlider,
    QWidget,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_TO_LET_GO: set[Callable[[], None]] = set()  # one for each layer box there is

Choice = tuple[str, Any]  # what stands in the list, and what it means


class ChoiceBox(QComboBox):
    """Chooses one of several things; a last entry may ask for one that is not in the list yet.

    It gives way to a narrow dock whatever its entries' lengths, and keeps its choice while that is on offer.
    """

    changed = Signal()

    def __init__(self, browse: tuple[str, Callable[[QWidget], Any | None]] | None = None) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setMinimumWidth(90)  # else a placeholder would set the width of the dock
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._browse = browse
        self._offered: list[Choice] = []
        self._found: list[Choice] = []  # what browsing brought
        self._value: Any = None
        self._is_deliberate = False  # chosen by a person, not by default
        self.activated.connect(self._activated)

    def value(self) -> Any:
        """What is chosen, or None."""
        return self._value

    def choose(self, value: Any) -> None:
        """Choose what is on offer, or a path that is not yet, and stay with it."""
        self._is_deliberate = True
        if isinstance(value, Path) and value not in [found for _, found in self._found]:
            self._found.append((value.name, value))
        self._show(value)

    def offer(self, choices: Iterable[Choice], default: Any = None) -> None:
        """Replace the entries; `default` is chosen where a person chose nothing that is still among them."""
        self._offered = list(choices)
        is_on_offer = any(value is self._value for _, value in self._choices())
        self._is_deliberate = self._is_deliberate and is_on_offer
        self._show(self._value if self._is_deliberate else default)

    def _choices(self) -> list[Choice]:
        return self._offered + self._found

    def _show(self, chosen: Any) -> None:
        before = self._value
        with QSignalBlocker(self):
            self.clear()
            for label, _ in self._choices():
                self.addItem(label)
                self.setItemData(self.count() - 1, label, Qt.ItemDataRole.ToolTipRole)
            if self._browse:
                self.insertSeparator(self.count())
                self.addItem(self._browse[0])
            rows = [
                row for row, (_, value) in enumerate(self._choices()) if value is chosen or value == chosen
            ]
            self.setCurrentIndex(rows[0] if rows else -1)
            self._value = chosen if rows else None
        if self._value is not before:
            self.changed.emit()

    def _activated(self, row: int) -> None:
        choices = self._choices()
        if row < len(choices):
            self.choose(choices[row][1])
            return
        assert self._browse is not None
        found = self._browse[1](self)
        self.choose(found) if found is not None else self._show(self._value)


class LayerBox(ChoiceBox):
    """Chooses a layer of the viewer; follows layers as they come, go and change their names."""

    def __init__(
        self,
        viewer: "ViewerModel",
        accepts: Callable[["Layer"], bool],
        *,
        placeholder: str,
        default: Callable[[list["Layer"]], Any | None] = lambda layers: None,
        others: Callable[[], Iterable[Choice]] = tuple,
        browse: tuple[str, Callable[[QWidget], Any | None]] | None = None,
    ) -> None:
        """
        Args:
            accepts: which layers are offered.
            placeholder: what stands there while nothing is chosen.
            default: which of the offered layers, or of the others, to choose when none is.
            others: what is offered beside layers.
        """
        super().__init__(browse)
        self.setPlaceholderText(placeholder)
        self._layers, self._accepts = viewer.layers, accepts
        self._default, self._others = default, others
        events = viewer.layers.events
        followed = (events.inserted, events.removed, events.reordered, events.renamed)
        for emitter in followed:
            emitter.connect(self.refill)
        callback = (ref(self), "refill")  # as napari keeps it; a method would keep this box alive

        def let_go() -> None:
            for emitter in followed:
                emitter.disconnect(callback)
            _TO_LET_GO.discard(let_go)

        # held here as well: the garbage collector would empty it before the box it is collected with is gone
        _TO_LET_GO.add(let_go)
        self.destroyed.connect(let_go)
        self.refill()

    def refill(self) -> None:
        """Offer what the viewer holds now, the uppermost layer first."""
        layers = [layer for layer in reversed(self._layers) if self._accepts(layer)]
        offered = [(layer.name, layer) for layer in layers]
        self.offer([*offered, *self._others()], self._default(layers))


class AmountSlider(QWidget):
    """A slider over the usual amounts, in hundredths, and a box that also takes what lies beyond."""

    changed = Signal(float)

    def __init__(self, usual: tuple[float, float], possible: tuple[float, float], value: float) -> None:
        super().__init__()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(*(round(100 * amount) for amount in usual))
        self.box = QDoubleSpinBox()
        self.box.setRange(*possible)
        self.box.setSingleStep(0.05)
        self.box.setValue(value)
        self.box.setFixedWidth(110)
        self.slider.setValue(round(100 * value))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.slider, 1)
        row.addWidget(self.box)
        self.slider.valueChanged.connect(lambda hundredths: self.box.setValue(hundredths / 100))
        self.box.valueChanged.connect(self._box_changed)

    def value(self) -> float:
        """The amount."""
        return self.box.value()

    def set_value(self, amount: float) -> None:
        """Move both to an amount."""
        self.box.setValue(amount)

    def _box_changed(self, amount: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(100 * amount))
        self.changed.emit(amount)


class StrengthSlider(AmountSlider):
    """How much of the style: from 0 to 1, and on wish beyond."""

    def __init__(self, lowest: float, highest: float) -> None:
        super().__init__((0.0, 1.0), (lowest, highest), 1.0)
        self.setToolTip(
            "0 leaves the scan as it is, 1 is the whole style.\n"
            f"Type a number between {lowest} and {highest} to go beyond either scan."
        )


def ask_prototype(parent: QWidget) -> Path | None:
    """A `.style` file the person picks."""
    path, _ = QFileDialog.getOpenFileName(parent, "Style prototype", "", "Style prototypes (*.style)")
    return Path(path) if path else None


def rows(*named: tuple[str, QWidget]) -> QFormLayout:
    """Widgets below each other, each beside its name."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    for name, widget in named:
        form.addRow(name, widget)
    return form

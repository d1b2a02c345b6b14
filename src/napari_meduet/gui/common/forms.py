"""Form controls that several docks share: lists of choices and of layers, sliders, rows and columns.

Each control emits `changed`. None of them reads a scan or loads a model.
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
    QLayout,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_DISCONNECTORS: set[Callable[[], None]] = set()  # one for each existing LayerBox

Choice = tuple[str, Any]  # the text in the list, and its value


class ChoiceBox(QComboBox):
    """Drop-down list of values. A last entry can open a dialog for a value that is not in the list.

    The box can become as narrow as the dock needs, and it keeps its value while the value is offered.
    """

    changed = Signal()

    def __init__(self, browse: tuple[str, Callable[[QWidget], Any | None]] | None = None) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setMinimumWidth(90)  # otherwise a placeholder text sets the width of the dock
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._browse = browse
        self._offered: list[Choice] = []
        self._browsed: list[Choice] = []  # values from the dialog
        self._value: Any = None
        self._is_deliberate = False  # chosen by the user or by `choose`, not by default
        self.activated.connect(self._activated)

    def value(self) -> Any:
        """Return the chosen value, or None."""
        return self._value

    def choose(self, value: Any) -> None:
        """Choose an offered value, or add and choose a path. Defaults no longer replace the choice."""
        self._is_deliberate = True
        if isinstance(value, Path) and value not in [browsed for _, browsed in self._browsed]:
            self._browsed.append((value.name, value))
        self._show(value)

    def keep(self) -> None:
        """Keep the current value, if any, when other values are offered later."""
        if self._value is not None:
            self.choose(self._value)

    def offer(self, choices: Iterable[Choice], default: Any = None) -> None:
        """Replace the entries. `default` is chosen unless a deliberate choice is still among them."""
        self._offered = list(choices)
        is_on_offer = any(value is self._value for _, value in self._choices())
        self._is_deliberate = self._is_deliberate and is_on_offer
        self._show(self._value if self._is_deliberate else default)

    def _choices(self) -> list[Choice]:
        return self._offered + self._browsed

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
        browsed = self._browse[1](self)
        self.choose(browsed) if browsed is not None else self._show(self._value)


class LayerBox(ChoiceBox):
    """Drop-down list of the viewer's layers. It follows layers that are added, removed, moved or renamed."""

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
            accepts: Returns whether a layer is offered.
            placeholder: Text while nothing is chosen.
            default: Returns the value to choose by default, from the offered layers (the uppermost first).
            others: Returns further choices, listed after the layers.
            browse: Text of a last entry, and the dialog that it opens.
        """
        super().__init__(browse)
        self.setPlaceholderText(placeholder)
        self._layers, self._accepts = viewer.layers, accepts
        self._default, self._others = default, others
        events = viewer.layers.events
        followed = (events.inserted, events.removed, events.reordered, events.renamed)
        for emitter in followed:
            emitter.connect(self.refill)
        callback = (
            ref(self),
            "refill",
        )  # the form in which napari stores it; a method would keep this box alive

        def disconnect() -> None:
            for emitter in followed:
                emitter.disconnect(callback)
            _DISCONNECTORS.discard(disconnect)

        # The set keeps the function alive: the garbage collector could clear it together with this box,
        # before `destroyed` is emitted.
        _DISCONNECTORS.add(disconnect)
        self.destroyed.connect(disconnect)
        self.refill()

    def refill(self) -> None:
        """Offer the viewer's current layers, the uppermost first."""
        layers = [layer for layer in reversed(self._layers) if self._accepts(layer)]
        offered = [(layer.name, layer) for layer in layers]
        self.offer([*offered, *self._others()], self._default(layers))


class AmountSlider(QWidget):
    """A slider over the usual amounts, in steps of 0.01, and a number box over all possible amounts."""

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
        """Return the amount."""
        return self.box.value()

    def set_value(self, amount: float) -> None:
        """Set the slider and the number box to an amount."""
        self.box.setValue(amount)

    def _box_changed(self, amount: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(100 * amount))
        self.changed.emit(amount)


class StrengthSlider(AmountSlider):
    """Strength of the style: 0 to 1 on the slider, and a wider range in the number box."""

    def __init__(self, lowest: float, highest: float) -> None:
        super().__init__((0.0, 1.0), (lowest, highest), 1.0)
        self.setToolTip(
            "Strength of the style. 0 leaves the scan unchanged, 1 is the full style.\n"
            f"Type a number from {lowest} to {highest} to extrapolate."
        )


def ask_prototype(parent: QWidget) -> Path | None:
    """Return the `.style` file that the user picks in a dialog; None if the user cancels."""
    path, _ = QFileDialog.getOpenFileName(parent, "Style prototype", "", "Style prototypes (*.style)")
    return Path(path) if path else None


def rows(*named: tuple[str, QWidget]) -> QFormLayout:
    """Return a form layout with one row for each name and widget."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    for name, widget in named:
        form.addRow(name, widget)
    return form


def fill_column(parent: QWidget, *parts: QWidget | QLayout, spacing: int | None = None) -> QWidget:
    """Put widgets and layouts below each other in `parent`, without margins, and return `parent`."""
    column = QVBoxLayout(parent)
    column.setContentsMargins(0, 0, 0, 0)
    if spacing is not None:
        column.setSpacing(spacing)
    for part in parts:
        column.addWidget(part) if isinstance(part, QWidget) else column.addLayout(part)
    return parent

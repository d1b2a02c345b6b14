"""Form controls for synthesis only: the style source, the seed and the size."""

from dataclasses import dataclass
from secrets import randbits
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QRegularExpression, Signal
from qtpy.QtGui import QRegularExpressionValidator
from qtpy.QtWidgets import QHBoxLayout, QLineEdit, QSpinBox, QToolButton, QWidget

from napari_meduet.gui.common.forms import LayerBox, ask_prototype
from napari_meduet.gui.layers import is_scan
from napari_meduet.pipelines.requests import TOKEN_VOXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel

SEED_BITS = 31  # of a random seed; short enough to read aloud
MAX_SEED_DIGITS = 18
MAX_TOKENS = 64  # along an axis; no scan has more


@dataclass(frozen=True)
class Domain:
    """A domain of the training data whose style is stored in the model."""

    name: str


ANY = Domain("")  # no condition


class StyleBox(LayerBox):
    """Drop-down list of styles: layers, prototype files, domains stored in the model, and "any style"."""

    def __init__(
        self,
        viewer: "ViewerModel",
        domains: "Callable[[], Sequence[str]]",
        default: "Callable[[list[Layer]], Any]",
    ) -> None:
        """
        Args:
            domains: Returns the names of the domains whose styles the current model stores.
            default: Returns the style to choose by default, from the offered layers.
        """
        super().__init__(
            viewer,
            is_scan,
            placeholder="",
            default=default,
            others=lambda: [("any style", ANY), *((f"known: {name}", Domain(name)) for name in domains())],
            browse=("Prototype file…", ask_prototype),
        )

    def name(self) -> str:
        """Return the name of the style; empty for "any style"."""
        style = self.value()
        if isinstance(style, Layer | Domain):
            return style.name
        return style.stem


class SeedBox(QWidget):
    """A number field for the seed, and a button that draws a new random seed."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.field = QLineEdit()
        self.field.setValidator(
            QRegularExpressionValidator(QRegularExpression(rf"\d{{1,{MAX_SEED_DIGITS}}}"))
        )
        self.field.setToolTip("Seed of the initial noise. The same seed gives the same volume.")
        self.field.setMinimumWidth(60)
        self.new = QToolButton()
        self.new.setText("New")
        self.new.setToolTip("Draw a new random seed")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.field, 1)
        row.addWidget(self.new)
        self.new.clicked.connect(self.draw)
        self.field.textChanged.connect(lambda: self.changed.emit())
        self.draw()

    def value(self) -> int | None:
        """Return the seed; None while the field is empty."""
        return int(self.field.text()) if self.field.text() else None

    def draw(self) -> None:
        """Set a new random seed."""
        self.field.setText(str(randbits(SEED_BITS)))


class SizeBox(QWidget):
    """Three number fields for the size of a result in voxels of the working grid.

    Each side is a multiple of the token size and at least the generator's training size.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._own: tuple[int, ...] = ()
        self.sides = tuple(QSpinBox() for _ in range(3))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for side, axis in zip(self.sides, ("right", "anterior", "superior"), strict=True):
            side.setSingleStep(TOKEN_VOXELS)
            side.setStyleSheet("QSpinBox { min-width: 44px; }")  # napari's minimum is wider
            side.setToolTip(f"Number of voxels towards {axis}, a multiple of {TOKEN_VOXELS}")
            side.valueChanged.connect(lambda: self.changed.emit())
            row.addWidget(side)

    def set_own(self, tokens: "Sequence[int]") -> None:
        """Set the generator's training size, in tokens, as the value and the minimum."""
        own = tuple(TOKEN_VOXELS * length for length in tokens)
        if own == self._own:
            return
        self._own = own
        for side, length in zip(self.sides, own, strict=True):
            side.setRange(length, TOKEN_VOXELS * MAX_TOKENS)
            side.setValue(length)

    def value(self) -> tuple[int, int, int] | None:
        """Return the size in voxels; None for the generator's training size."""
        x, y, z = (side.value() for side in self.sides)
        return None if (x, y, z) == self._own else (x, y, z)

"""The controls that only a synthesis needs: its seed, its size, what it may take as style."""

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

SEED_BITS = 31  # of a seed drawn here: short enough to be read out
MOST_SEED_DIGITS = 18
MOST_TOKENS = 64  # along an axis: more than any scan has


@dataclass(frozen=True)
class Domain:
    """A style that the model knows by name."""

    name: str


ANY = Domain("")  # no wish


class StyleBox(LayerBox):
    """Chooses a style: a layer, a prototype file, a domain the model knows, or any."""

    def __init__(
        self,
        viewer: "ViewerModel",
        domains: "Callable[[], Sequence[str]]",
        default: "Callable[[list[Layer]], Any]",
    ) -> None:
        """
        Args:
            domains: those that the model knows now.
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
        """What to call the style; empty where any will do."""
        style = self.value()
        if isinstance(style, Layer | Domain):
            return style.name
        return style.stem


class SeedBox(QWidget):
    """A seed, and a button that draws another."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.field = QLineEdit()
        self.field.setValidator(
            QRegularExpressionValidator(QRegularExpression(rf"\d{{1,{MOST_SEED_DIGITS}}}"))
        )
        self.field.setToolTip("Draws the noise that a volume begins as: the same seed, the same volume")
        self.field.setMinimumWidth(60)
        self.new = QToolButton()
        self.new.setText("New")
        self.new.setToolTip("Draw another seed")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.field, 1)
        row.addWidget(self.new)
        self.new.clicked.connect(self.draw)
        self.field.textChanged.connect(lambda: self.changed.emit())
        self.draw()

    def value(self) -> int | None:
        """The seed; None while the field is empty."""
        return int(self.field.text()) if self.field.text() else None

    def draw(self) -> None:
        """Another seed."""
        self.field.setText(str(randbits(SEED_BITS)))


class SizeBox(QWidget):
    """The size of a result in voxels of the working grid, whole tokens, from the generator's own on."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._own: tuple[int, ...] = ()
        self.sides = tuple(QSpinBox() for _ in range(3))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for side, axis in zip(self.sides, ("right", "anterior", "superior"), strict=True):
            side.setSingleStep(TOKEN_VOXELS)
            side.setStyleSheet("QSpinBox { min-width: 44px; }")  # napari's own would widen the dock
            side.setToolTip(f"Voxels towards {axis}, a multiple of {TOKEN_VOXELS}")
            side.valueChanged.connect(lambda: self.changed.emit())
            row.addWidget(side)

    def set_own(self, tokens: "Sequence[int]") -> None:
        """Begin at the size a generator was trained at."""
        own = tuple(TOKEN_VOXELS * length for length in tokens)
        if own == self._own:
            return
        self._own = own
        for side, length in zip(self.sides, own, strict=True):
            side.setRange(length, TOKEN_VOXELS * MOST_TOKENS)
            side.setValue(length)

    def value(self) -> tuple[int, int, int] | None:
        """The size; None for the generator's own."""
        x, y, z = (side.value() for side in self.sides)
        return None if (x, y, z) == self._own else (x, y, z)

"""How learning goes, drawn while it goes: the loss, which falls, and Dice in the examples, which rises.

Both are told apart by dashes and names, not only by colour.
"""

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari_meduet.pipelines.segmentation.finetuned import TaughtSoFar

HEIGHT = 120  # pixels
LOSS_COLOUR, DICE_COLOUR = "#e69f00", "#56b4e9"  # of Okabe and Ito
_LEFT, _RIGHT, _TOP, _BOTTOM = 28, 28, 18, 18  # room for what is written at the sides
_LEAST_SECONDS = 10.0  # of the time axis


class TeachCurve(QWidget):
    """Hidden until there is a point."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[TaughtSoFar] = []
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVisible(False)

    def clear(self) -> None:
        """Begin anew."""
        self.points = []
        self.setVisible(False)

    def add(self, point: "TaughtSoFar") -> None:
        """One point more."""
        self.points.append(point)
        self.setVisible(True)
        self.setAccessibleName(self.summary())
        self.setToolTip("Loss (orange) should fall, Dice in the examples (blue, dashed) should rise")
        self.update()

    def summary(self) -> str:
        """The last point in words."""
        last = self.points[-1]
        dice = next((point.dice for point in reversed(self.points) if point.dice is not None), None)
        told = f"Step {last.step}, {clock(last.seconds)}: loss {last.loss:.2f}"
        return told if dice is None else f"{told}, Dice {dice:.2f}"

    def paintEvent(self, event: QPaintEvent) -> None:  # Qt's name
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small = QFont(self.font())
        small.setPointSizeF(max(7.0, 0.8 * small.pointSizeF()))
        painter.setFont(small)
        frame = QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)
        longest = max(_LEAST_SECONDS, self.points[-1].seconds if self.points else 0.0)
        highest = max([1.0, *(point.loss for point in self.points)])
        self._draw_axes(painter, frame, longest, highest)
        losses = [(point.seconds, point.loss / highest) for point in self.points]
        dices = [(point.seconds, point.dice) for point in self.points if point.dice is not None]
        for shares, colour, dashes in (
            (losses, LOSS_COLOUR, Qt.PenStyle.SolidLine),
            (dices, DICE_COLOUR, Qt.PenStyle.DashLine),
        ):
            painter.setPen(QPen(QColor(colour), 2, dashes))
            line = QPolygonF(
                [
                    QPointF(
                        frame.left() + frame.width() * at / longest, frame.bottom() - frame.height() * share
                    )
                    for at, share in shares
                ]
            )
            painter.drawPolyline(line)
        painter.end()

    def _draw_axes(self, painter: QPainter, frame: QRectF, longest: float, highest: float) -> None:
        grey = self.palette().text().color()
        grey.setAlpha(70)
        painter.setPen(QPen(grey, 1))
        for share in (0.0, 0.5, 1.0):
            height = frame.bottom() - share * frame.height()
            painter.drawLine(QPointF(frame.left(), height), QPointF(frame.right(), height))
        before = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        after = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        above, below = QRectF(frame), QRectF(frame)
        above.setRect(frame.left(), 0, frame.width(), _TOP)
        below.setRect(frame.left(), frame.bottom() + 2, frame.width(), _BOTTOM - 2)
        for colour, side, highest_there, name in (
            (LOSS_COLOUR, before, highest, "— loss"),
            (DICE_COLOUR, after, 1.0, "╌ Dice in the examples"),
        ):
            painter.setPen(QColor(colour))
            edge = 0 if side == before else frame.right() + 4
            for share in (0.0, 0.5, 1.0):
                box = QRectF(edge, frame.bottom() - share * frame.height() - 8, _LEFT - 4, 16)
                painter.drawText(box, side, f"{share * highest_there:.1f}")
            painter.drawText(above, after if side == before else before, name)
        painter.setPen(self.palette().text().color())
        painter.drawText(below, after, "0:00")
        painter.drawText(below, before, clock(longest))


def clock(seconds: float) -> str:
    """A duration as a stop watch shows it."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"

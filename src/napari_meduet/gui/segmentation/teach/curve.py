"""Training curve of the Teach page: the loss and the Dice score on the samples, drawn during training.

The two lines differ in colour, in dashes and in their names.
"""

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari_meduet.pipelines.segmentation.finetuned import TaughtSoFar

HEIGHT = 120  # pixels
LOSS_COLOUR, DICE_COLOUR = "#e69f00", "#56b4e9"  # from the colour-blind safe palette of Okabe and Ito
_LEFT, _RIGHT, _TOP, _BOTTOM = 28, 28, 18, 18  # margins for the labels of the axes, in pixels
_MIN_SECONDS = 10.0  # length of the time axis


class TrainingCurve(QWidget):
    """The curve. It is hidden until it has a point."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[TaughtSoFar] = []
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setVisible(False)

    def clear(self) -> None:
        """Remove all points and hide the curve."""
        self.points = []
        self.setVisible(False)

    def add(self, point: "TaughtSoFar") -> None:
        """Add a point."""
        self.points.append(point)
        self.setVisible(True)
        self.setAccessibleName(self.summary())
        self.setToolTip("Loss (orange) should fall. Dice on the samples (blue, dashed) should rise.")
        self.update()

    def summary(self) -> str:
        """Return the latest point as text."""
        last = self.points[-1]
        dice = next((point.dice for point in reversed(self.points) if point.dice is not None), None)
        text = f"Step {last.step}, {clock(last.seconds)}: loss {last.loss:.2f}"
        return text if dice is None else f"{text}, Dice {dice:.2f}"

    def paintEvent(self, event: QPaintEvent) -> None:  # Qt's name
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small = QFont(self.font())
        small.setPointSizeF(max(7.0, 0.8 * small.pointSizeF()))
        painter.setFont(small)
        frame = QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)
        longest = max(_MIN_SECONDS, self.points[-1].seconds if self.points else 0.0)
        highest = max([1.0, *(point.loss for point in self.points)])
        self._draw_axes(painter, frame, longest, highest)
        losses = [(point.seconds, point.loss / highest) for point in self.points]
        dices = [(point.seconds, point.dice) for point in self.points if point.dice is not None]
        for heights, colour, dashes in (
            (losses, LOSS_COLOUR, Qt.PenStyle.SolidLine),
            (dices, DICE_COLOUR, Qt.PenStyle.DashLine),
        ):
            painter.setPen(QPen(QColor(colour), 2, dashes))
            line = QPolygonF(
                [
                    QPointF(
                        frame.left() + frame.width() * seconds / longest,
                        frame.bottom() - frame.height() * height,
                    )
                    for seconds, height in heights
                ]
            )
            painter.drawPolyline(line)
        painter.end()

    def _draw_axes(self, painter: QPainter, frame: QRectF, longest: float, highest: float) -> None:
        grey = self.palette().text().color()
        grey.setAlpha(70)
        painter.setPen(QPen(grey, 1))
        for fraction in (0.0, 0.5, 1.0):
            height = frame.bottom() - fraction * frame.height()
            painter.drawLine(QPointF(frame.left(), height), QPointF(frame.right(), height))
        before = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        after = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        above, below = QRectF(frame), QRectF(frame)
        above.setRect(frame.left(), 0, frame.width(), _TOP)
        below.setRect(frame.left(), frame.bottom() + 2, frame.width(), _BOTTOM - 2)
        for colour, side, axis_end, name in (
            (LOSS_COLOUR, before, highest, "— loss"),
            (DICE_COLOUR, after, 1.0, "╌ Dice on the samples"),
        ):
            painter.setPen(QColor(colour))
            edge = 0 if side == before else frame.right() + 4
            for fraction in (0.0, 0.5, 1.0):
                box = QRectF(edge, frame.bottom() - fraction * frame.height() - 8, _LEFT - 4, 16)
                painter.drawText(box, side, f"{fraction * axis_end:.1f}")
            painter.drawText(above, after if side == before else before, name)
        painter.setPen(self.palette().text().color())
        painter.drawText(below, after, "0:00")
        painter.drawText(below, before, clock(longest))


def clock(seconds: float) -> str:
    """Return a duration in minutes and seconds, such as "2:05"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"

"""Run, which becomes Cancel, which becomes Cancelling…, and beneath it how far the work is."""

import time

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

SETTLE_S = (
    0.4  # a press this soon after another is the same one, so that an eager double click cancels nothing
)
_ETA_AFTER_S = 2.0


class RunBar(QWidget):
    """The button and the bar. It knows presses and progress, not what runs."""

    run_pressed = Signal()
    cancel_pressed = Signal()

    def __init__(self, text: str, on_cancel: str = "nothing is changed") -> None:
        """
        Args:
            on_cancel: what Cancel does with what was done so far.
        """
        super().__init__()
        self._text, self._on_cancel = text, on_cancel
        self._is_running = False
        self._last_press = 0.0
        self._started = 0.0
        self.button = QPushButton(text)
        self.button.setObjectName("run")
        self.duration = QLabel()
        self.duration.setVisible(False)
        beside = QHBoxLayout()
        beside.addWidget(self.button, 1)
        beside.addWidget(self.duration)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.status = QLabel()
        self.status.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(beside)
        column.addWidget(self.bar)
        column.addWidget(self.status)
        self.button.clicked.connect(self._pressed)
        self.rest()

    def rest(self, disabled_reason: str = "", status: str = "") -> None:
        """Nothing runs.

        Args:
            obstacle: why nothing can run now; empty where something can.
            status: what to say beneath otherwise.
        """
        self._is_running = False
        self.button.setText(self._text)
        self.button.setEnabled(not disabled_reason)
        self.button.setToolTip(disabled_reason)
        self.bar.setVisible(False)
        self.status.setText(disabled_reason or status)
        self.status.setVisible(bool(disabled_reason or status))

    def predict(self, seconds: float | None) -> None:
        """Say beside the button how long the work will take; None: not known."""
        self.duration.setText("" if seconds is None else f"about {_told(seconds)}")
        self.duration.setVisible(seconds is not None)

    def start(self) -> None:
        """Work has begun."""
        self._is_running = True
        self._started = time.monotonic()
        self.button.setText("Cancel")
        self.button.setEnabled(True)
        self.button.setToolTip(f"Stop the work; {self._on_cancel}")
        self.bar.setValue(0)
        self.bar.setVisible(True)
        self.status.setText("Starting…")
        self.status.setVisible(True)

    def advance(self, fraction: float, doing: str) -> None:
        """The work is this far."""
        if self.button.isEnabled():
            self.bar.setValue(round(1000 * fraction))
            self.status.setText(f"{doing[:1].upper()}{doing[1:]}{self._time_left(fraction)}")

    def cancelling(self) -> None:
        """The work was asked to stop and has not yet."""
        self.button.setText("Cancelling…")
        self.button.setEnabled(False)

    def _time_left(self, fraction: float) -> str:
        elapsed = time.monotonic() - self._started
        if elapsed < _ETA_AFTER_S or fraction < 0.05:
            return ""
        seconds = elapsed * (1 - fraction) / fraction
        return f", about {_told(seconds)} left"

    def _pressed(self) -> None:
        is_same_press = time.monotonic() - self._last_press < SETTLE_S
        if not is_same_press:
            (self.cancel_pressed if self._is_running else self.run_pressed).emit()
        self._last_press = time.monotonic()  # presses that waited for the above to end belong to it too


def _told(seconds: float) -> str:
    """A duration as one says it."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"

"""A Run button that becomes Cancel while work runs, with a progress bar and a status line below it."""

import time

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget

from napari_meduet.gui.common.forms import fill_column

SETTLE_S = 0.4  # presses closer together count as one, so that a double click does not cancel the job
_ETA_AFTER_S = 2.0


class RunBar(QWidget):
    """The button, the progress bar and the status line. The dock decides what they run."""

    run_pressed = Signal()
    cancel_pressed = Signal()

    def __init__(self, text: str, on_cancel: str = "nothing is changed") -> None:
        """
        Args:
            text: Text of the button while nothing runs.
            on_cancel: Effect of Cancel on the work done so far; shown in the tooltip.
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
        fill_column(self, beside, self.bar, self.status, spacing=4)
        self.button.clicked.connect(self._pressed)
        self.rest()

    def rest(self, disabled_reason: str = "", status: str = "") -> None:
        """Show that nothing runs.

        Args:
            disabled_reason: Why the button is disabled; empty where it is enabled.
            status: Text of the status line where the button is enabled.
        """
        self._is_running = False
        self.button.setText(self._text)
        self.button.setEnabled(not disabled_reason)
        self.button.setToolTip(disabled_reason)
        self.bar.setVisible(False)
        self.status.setText(disabled_reason or status)
        self.status.setVisible(bool(disabled_reason or status))

    def predict(self, seconds: float | None) -> None:
        """Show the expected duration beside the button; None hides it."""
        self.duration.setText("" if seconds is None else f"about {_duration_text(seconds)}")
        self.duration.setVisible(seconds is not None)

    def start(self) -> None:
        """Show that the work has started."""
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
        """Show the fraction done, from 0 to 1, and the current stage."""
        if self.button.isEnabled():
            self.bar.setValue(round(1000 * fraction))
            self.status.setText(f"{doing[:1].upper()}{doing[1:]}{self._time_left(fraction)}")

    def cancelling(self) -> None:
        """Show that the work was asked to stop and still runs."""
        self.button.setText("Cancelling…")
        self.button.setEnabled(False)

    def _time_left(self, fraction: float) -> str:
        elapsed = time.monotonic() - self._started
        if elapsed < _ETA_AFTER_S or fraction < 0.05:
            return ""
        seconds = elapsed * (1 - fraction) / fraction
        return f", about {_duration_text(seconds)} left"

    def _pressed(self) -> None:
        is_same_press = time.monotonic() - self._last_press < SETTLE_S
        if not is_same_press:
            (self.cancel_pressed if self._is_running else self.run_pressed).emit()
        self._last_press = time.monotonic()  # presses while the slots ran count as this press


def _duration_text(seconds: float) -> str:
    """Return a duration in minutes or seconds, such as "12 s"."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"

"""The safety report of a swap in words: what it amounts to, why, and the figures behind it."""

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QLabel, QVBoxLayout

from napari_meduet.gui.common.section import Section

if TYPE_CHECKING:
    from napari_meduet.pipelines.swap.safety import Measurements, SafetyReport

# The word carries the meaning; the colours (dark text on each, contrast above 7:1) only repeat it.
HEADINGS = {
    "pass": ("PASS", "#7bd88f", "No measurement speaks against this result."),
    "check": ("CHECK", "#f2c14e", "Look at what is named here before you use this result."),
    "refuse": ("REFUSE", "#ff8f80", "Do not use this result."),
}


class VerdictPanel(QFrame):
    """Hidden until there is a report."""

    def __init__(self) -> None:
        super().__init__()
        self.heading, self.reasons, self.figures = QLabel(), QLabel(), QLabel()
        self.measured = Section("What was measured", self.figures)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for label in (self.heading, self.reasons, self.figures):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        for widget in (self.heading, self.reasons, self.measured):
            column.addWidget(widget)
        self.setVisible(False)

    def show_report(self, report: "SafetyReport") -> None:
        """Show a report instead of the one before."""
        word, colour, meaning = HEADINGS[report.verdict]
        self.heading.setText(
            f'<b style="background-color: {colour}; color: #1b1b1b">&nbsp;{word}&nbsp;</b>&nbsp; {meaning}'
        )
        self.reasons.setText(
            "".join(f"<p style='margin: 2px 0'>• {escape(reason)}</p>" for reason in report.reasons)
        )
        self.figures.setText(_table(report.measurements))
        self.setVisible(True)

    def clear(self) -> None:
        """There is no report any more."""
        self.setVisible(False)


def _table(m: "Measurements") -> str:
    rows = [
        ("Mean change by style", _amount(m.change, m)),
        ("Its noise floor", _amount(m.noise_floor, m)),
        ("95 % of edges within", f"{m.edge_displacement_mm:.2f} mm"),
        ("Strong edges lost", f"{m.lost_edges:.1%}"),
        ("Gradient correlation", f"{m.gradient_correlation:.3f}"),
        ("Tokenizer round trip", f"{m.roundtrip_psnr_db:.1f} dB"),
        ("Body outside profile", f"{m.clipped_fraction:.1%}"),
    ]
    if m.style_distance is not None:
        rows.append(("Nearest known style", f"{m.style_distance:.1f} spreads"))
    rows += [(f"Drift, label {drift.label}", _amount(drift.drift, m, sign="+")) for drift in m.label_drift]
    lines = (
        f"<tr><td>{escape(name)}&nbsp;&nbsp;</td><td>{escape(figure)}</td></tr>" for name, figure in rows
    )
    return f"<table>{''.join(lines)}</table>"


def _amount(value: float, m: "Measurements", sign: str = "") -> str:
    """In HU; MR signal has no unit, and is told as a share of the scan's own intensity range."""
    if m.unit == "HU":
        return f"{value:{sign}.1f} HU"
    return f"{value / m.value_range:{sign}.1%} of range"

"""Show the safety report of a swap: the verdict, its reasons and the measurements."""

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QLabel

from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.section import Section

if TYPE_CHECKING:
    from napari_meduet.pipelines.style_swap.safety import Measurements, SafetyReport

# The word alone states the verdict; the colour repeats it. Dark text on each colour has a contrast above 7:1.
HEADINGS = {
    "pass": ("PASS", "#7bd88f", "All measurements are within their limits."),
    "check": ("CHECK", "#f2c14e", "Check the points below before you use this result."),
    "refuse": ("REFUSE", "#ff8f80", "Do not use this result."),
}


class VerdictPanel(QFrame):
    """The report. The panel is hidden until there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.heading, self.reasons, self.measurements = QLabel(), QLabel(), QLabel()
        self.measured = Section("Measurements", self.measurements)
        for label in (self.heading, self.reasons, self.measurements):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        fill_column(self, self.heading, self.reasons, self.measured)
        self.setVisible(False)

    def show_report(self, report: "SafetyReport") -> None:
        """Show a report in place of an earlier one."""
        word, colour, meaning = HEADINGS[report.verdict]
        self.heading.setText(
            f'<b style="background-color: {colour}; color: #1b1b1b">&nbsp;{word}&nbsp;</b>&nbsp; {meaning}'
        )
        self.reasons.setText(
            "".join(f"<p style='margin: 2px 0'>• {escape(reason)}</p>" for reason in report.reasons)
        )
        self.measurements.setText(_table(report.measurements))
        self.setVisible(True)

    def clear(self) -> None:
        """Hide the panel."""
        self.setVisible(False)


def _table(m: "Measurements") -> str:
    rows = [
        ("Mean change by style", _amount(m.change, m)),
        ("Noise floor of the change", _amount(m.noise_floor, m)),
        ("95 % of edges within", f"{m.edge_displacement_mm:.2f} mm"),
        ("Strong edges lost", f"{m.lost_edges:.1%}"),
        ("Gradient correlation", f"{m.gradient_correlation:.3f}"),
        ("Tokenizer round trip", f"{m.roundtrip_psnr_db:.1f} dB"),
        ("Body outside profile", f"{m.clipped_fraction:.1%}"),
    ]
    if m.style_distance is not None:
        rows.append(("Nearest known style", f"{m.style_distance:.1f} std"))
    rows += [(f"Drift, label {drift.label}", _amount(drift.drift, m, sign="+")) for drift in m.label_drift]
    lines = (f"<tr><td>{escape(name)}&nbsp;&nbsp;</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def _amount(value: float, m: "Measurements", sign: str = "") -> str:
    """Return a value in HU, or for MR, which has no unit, in percent of the scan's intensity range."""
    if m.unit == "HU":
        return f"{value:{sign}.1f} HU"
    return f"{value / m.value_range:{sign}.1%} of range"

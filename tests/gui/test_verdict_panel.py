import re

from fakes import a_report

from napari_meduet.gui.swap.verdict_panel import HEADINGS, VerdictPanel
from napari_meduet.pipelines.style_swap.safety import LabelDrift


def test_the_verdict_is_in_words_and_the_figures_have_their_unit(qtbot):
    panel = VerdictPanel()
    qtbot.addWidget(panel)
    assert not panel.isVisibleTo(panel.parentWidget())
    lesion = LabelDrift(label=3, num_voxels=50, before=40.0, after=55.0)
    panel.show_report(a_report(label_drift=(lesion,)))
    assert "CHECK" in panel.heading.text()
    assert "label 3" in panel.reasons.text()
    assert "Drift, label 3" in panel.measurements.text()
    assert "+15.0 HU" in panel.measurements.text()

    panel.show_report(
        a_report(modality="MR", unit="arbitrary", value_range=1000.0, change=25.0, style_distance=None)
    )
    assert "PASS" in panel.heading.text()
    assert "2.5% of range" in panel.measurements.text()
    assert "arbitrary" not in panel.measurements.text()
    assert "known style" not in panel.measurements.text()


def test_the_words_stand_out_on_their_colours():
    """Contrast of dark text on each, as WCAG defines it; 7 is its strictest level."""

    def luminance(colour: str) -> float:
        channels = [int(pair, 16) / 255 for pair in re.findall("..", colour.removeprefix("#"))]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    text = luminance("#1b1b1b")
    for _, colour, _ in HEADINGS.values():
        assert (luminance(colour) + 0.05) / (text + 0.05) > 7

"""Which structures are judged, and how their scores become one number: by hand."""

import json

import numpy as np
import pytest

from meduet_training.evaluation.metrics.overlap import Overlap
from meduet_training.evaluation.metrics.segmentation_scores import (
    METRICS,
    Score,
    mean_over_structures,
    measure_structures,
    paired_difference,
)
from meduet_training.evaluation.metrics.surface_distance import SurfaceAgreement
from meduet_training.evaluation.segmentation.report import EvaluationSettings, summarise
from napari_meduet.core.analysis.finetuning import IGNORED

SPACING = (1.0, 1.0, 3.0)


def score(scan: int, structure: str, dice: float, patient: str = "p") -> Score:
    return Score(
        method="m", structure=structure, scan=scan, domain="d", patient=patient,
        overlap=Overlap(dice=dice, truth_ml=1.0, predicted_ml=1.0),
        surface=SurfaceAgreement(nsd=dice / 2, hd95_mm=None),
    )  # fmt: skip


def test_only_what_somebody_looked_for_is_judged():
    truth, found = np.zeros((2, 8, 8, 8), np.uint8)
    truth[2:6, 2:6, 2:6] = 1
    found[2:6, 2:6, 2:6] = 1
    found[6:, 6:, 6:] = 2  # nobody looked for 2, and nothing of 3 is there
    found[:2, :2, :2] = 3
    measured = measure_structures(found, truth, (True, True, False, True), SPACING, 3.0)
    assert set(measured) == {1, 3}
    assert measured[1].overlap.dice == 1.0
    assert measured[1].surface is not None
    assert measured[1].surface.nsd == 1.0
    assert (measured[3].overlap.dice, measured[3].surface) == (None, None)
    assert measured[3].overlap.predicted_ml == pytest.approx(8 * 3 / 1000)


def test_where_nobody_looked_nothing_counts():
    truth, found = np.zeros((2, 8, 8, 8), np.uint8)
    truth[:4, :, :4] = found[:4] = 1
    truth[:, :, 4:] = IGNORED
    assert measure_structures(found, truth, (True, True), SPACING, 3.0)[1].overlap.dice == 1.0


def test_each_structure_counts_alike():
    """One has two scans (0.5 and 0.7), the other one (0.2): their means are 0.6 and 0.2."""
    found = mean_over_structures([0.5, 0.7, 0.2], ["a", "a", "b"], ["p", "q", "q"], seed=0)
    assert found.value == pytest.approx(0.4)
    assert found.num_patients == 2
    assert found.low == pytest.approx(0.4)  # both; q twice is 0.45
    assert found.high == pytest.approx(0.5)  # p twice, who lacks b


def test_differences_are_of_the_same_structures_in_the_same_scans():
    ours = [score(1, "a", 0.9), score(1, "b", 0.2), score(2, "a", 0.5)]
    others = [score(2, "a", 0.4), score(1, "a", 0.6), score(3, "a", 1.0)]
    found = paired_difference(ours, others, METRICS["Dice"], seed=0)
    assert found is not None
    assert found.value == pytest.approx((0.3 + 0.1) / 2)
    assert found.num_samples == 2
    halved = paired_difference(ours, others, METRICS["NSD"], seed=0)
    assert halved is not None
    assert halved.value == pytest.approx(found.value / 2)
    assert paired_difference(ours, [score(7, "a", 1.0)], METRICS["Dice"], seed=0) is None


def test_what_is_found_where_nothing_is_is_said():
    setting = EvaluationSettings(
        methods={"m": {"model_sha256": "0" * 64}, "other": {}}, tolerance_mm=3, seed=7, num_scans=2,
        num_patients=1, not_covered=["tumour"], not_evaluated=["aorta"],
        false_positives_ml=[("m", "heart", 1, 0.0), ("m", "heart", 2, 12.34), ("other", "heart", 1, 0.0)],
    )  # fmt: skip
    found = summarise([score(1, "cord", 0.5), score(2, "cord", 0.7)], ["cord", "heart"], setting)
    text = found.as_markdown()
    assert "m predicted absent structures in 1 of 2 cases, at most 12.3 mL." in text
    assert "other predicted" not in text
    assert "not a class of the segmenter: tumour." in text
    assert "not evaluated: aorta." in text
    assert "| cord | 2 / 1 | 0.600 | 0.300 |" in text  # one patient: no interval, and "other" has no column
    assert json.dumps(found.as_data(), allow_nan=False)

"""Verdicts follow from measurements, and say in words what is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_meduet.pipelines.style_swap.safety import LabelDrift, Measurements, drift_under_labels, judge

GOOD = Measurements(
    modality="CT",
    unit="HU",
    value_range=2500.0,
    change=12.0,
    noise_floor=2.0,
    edge_displacement_mm=0.2,
    lost_edges=0.01,
    gradient_correlation=0.99,
    roundtrip_psnr_db=34.0,
    style_distance=1.2,
    clipped_fraction=0.004,
)


def test_a_good_swap_passes_and_says_why():
    report = judge(GOOD)
    assert report.verdict == "pass"
    assert "0.20 mm" in report.reasons[0]


@pytest.mark.parametrize(
    ("changes", "verdict", "word"),
    [
        ({"edge_displacement_mm": 0.9}, "check", "edges moved"),
        ({"edge_displacement_mm": 1.6}, "refuse", "edges moved"),
        ({"lost_edges": 0.1}, "check", "no counterpart"),
        ({"lost_edges": 0.3}, "refuse", "no counterpart"),
        ({"gradient_correlation": 0.9}, "check", "correlate"),
        ({"gradient_correlation": 0.5}, "refuse", "correlate"),
        ({"gradient_correlation": 0.5, "modality": "MR", "unit": "arbitrary"}, "check", "correlate"),
        ({"roundtrip_psnr_db": 20.0}, "check", "tokenizer"),
        ({"style_distance": 4.0}, "check", "spreads"),
        ({"style_distance": 9.0}, "refuse", "spreads"),
        ({"clipped_fraction": 0.2}, "check", "20%"),
        ({"noise_floor": 13.0}, "check", "halves"),
        ({"is_extrapolated": True}, "check", "extrapolated"),
    ],
)
def test_each_measurement_out_of_bounds_has_its_sentence(changes, verdict, word):
    report = judge(replace(GOOD, **changes))
    assert report.verdict == verdict
    assert len(report.reasons) == 1
    assert word in report.reasons[0]


def test_a_lesion_that_brightens_like_contrast_is_refused():
    drift = LabelDrift(label=3, num_voxels=900, before=35.0, after=58.0)
    report = judge(replace(GOOD, label_drift=(drift,)))
    assert report.verdict == "refuse"
    assert "label 3" in report.reasons[0]
    assert "+23 HU" in report.reasons[0]


def test_refusals_come_before_remarks():
    report = judge(replace(GOOD, clipped_fraction=0.2, edge_displacement_mm=2.0))
    assert report.verdict == "refuse"
    assert ["moved" in report.reasons[0], "outside" in report.reasons[1]] == [True, True]


def test_a_style_that_no_model_knows_is_not_judged_by_distance():
    assert judge(replace(GOOD, style_distance=None)).verdict == "pass"


def test_a_swap_that_changes_nothing_is_no_noise():
    assert judge(replace(GOOD, change=0.0)).verdict == "pass"


def test_drift_under_labels_by_hand():
    before = np.array([[[10.0, 20.0], [30.0, 40.0]]])
    after = before + np.array([[[1.0, 3.0], [0.0, -4.0]]])
    labels = np.array([[[2, 2], [0, 7]]])
    first, second = drift_under_labels(before, after, labels)
    assert (first.label, first.num_voxels, first.before, first.drift) == (2, 2, 15.0, 2.0)
    assert (second.label, second.drift) == (7, -4.0)


def test_a_report_is_plain_data():
    report = judge(replace(GOOD, label_drift=(LabelDrift(label=1, num_voxels=5, before=1.0, after=3.0),)))
    data = json.loads(json.dumps(report.as_dict()))
    assert data["verdict"] == "pass"
    assert data["measurements"]["label_drift"][0]["drift"] == 2.0

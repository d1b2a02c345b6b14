"""Intensity profiles (M-03): named, monotone, inverted exactly; and which voxels are the patient."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import (
    CT_FULL,
    CT_SOFT,
    CT_WIDE,
    IntensityProfile,
    body_mask,
    clipped_fraction,
    fit_mr_profile,
    profile_named,
)

PROFILES = [CT_SOFT, CT_WIDE, CT_FULL, IntensityProfile("mr", ((12.5, 0.0), (731.0, 1.0)))]
ids = [profile.name for profile in PROFILES]


@pytest.mark.parametrize(
    ("profile", "pairs"),
    [
        (CT_SOFT, [(-500, 0), (-175, 0), (37.5, 0.5), (250, 1), (900, 1)]),
        (CT_WIDE, [(-3000, 0), (-1000, 0), (0, 0.5), (500, 0.75), (1000, 1), (30000, 1)]),
        (CT_FULL, [(-1000, 0), (-587.5, 0.075), (-175, 0.15), (37.5, 0.5), (250, 0.85), (1500, 1)]),
    ],
    ids=["ct-soft", "ct-wide", "ct-full"],
)
def test_the_named_profiles_are_those_of_the_specification(profile: IntensityProfile, pairs):
    values, units = zip(*pairs, strict=True)
    np.testing.assert_allclose(profile.encode(np.array(values)), units, atol=1e-6)
    assert profile_named(profile.name) is profile


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
@given(fractions=st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_decode_inverts_encode_and_encode_decode(profile: IntensityProfile, fractions: list[float]):
    low, high = profile.knots[0][0], profile.knots[-1][0]
    values = np.float32(low) + np.array(fractions, np.float32) * np.float32(high - low)
    np.testing.assert_allclose(profile.decode(profile.encode(values)), values, atol=2e-6 * (high - low))
    units = np.array(fractions, np.float32)
    np.testing.assert_allclose(profile.encode(profile.decode(units)), units, atol=2e-6)


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
@given(a=st.floats(-40000, 40000, width=32), b=st.floats(-40000, 40000, width=32))
def test_monotone_within_zero_and_one(profile: IntensityProfile, a: float, b: float):
    low, high = profile.encode(np.array(sorted((a, b)), np.float32))
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
def test_every_whole_number_inside_keeps_its_own_unit(profile: IntensityProfile):
    values = np.arange(np.ceil(profile.knots[0][0]), np.floor(profile.knots[-1][0]) + 1, dtype=np.float32)
    assert (np.diff(profile.encode(values)) > 0).all()
    np.testing.assert_array_equal(np.rint(profile.decode(profile.encode(values))), values)


@pytest.mark.parametrize("profile", PROFILES, ids=ids)
def test_inside_is_strict(profile: IntensityProfile):
    low, high = profile.knots[0][0], profile.knots[-1][0]
    values = np.array([low - 1, low, low + 1, high - 1, high, high + 1])
    np.testing.assert_array_equal(profile.inside(values), [False, False, True, True, False, False])


@pytest.mark.parametrize(
    "knots",
    [((0.0, 0.0),), ((0.0, 0.0), (0.0, 1.0)), ((0.0, 0.0), (1.0, 0.5)), ((0.0, 0.0), (np.nan, 1.0)),
     ((0.0, 0.0), (1.0, 0.7), (2.0, 0.7), (3.0, 1.0))],
)  # fmt: skip
def test_a_profile_that_cannot_be_inverted_cannot_be_made(knots):
    with pytest.raises(ValueError, match=r"[Pp]rofile bad"):
        IntensityProfile("bad", knots)


def test_an_unknown_profile_is_refused():
    with pytest.raises(InputError, match="ct-soft, ct-wide, ct-full"):
        profile_named("ct-bone")


def test_clipped_fraction_counts_the_body_only():
    values = np.array([-1000.0, 0, 100, 300, 400])
    body = np.array([False, True, True, True, True])
    assert clipped_fraction(CT_SOFT, values, body) == 0.5
    assert clipped_fraction(CT_SOFT, values, np.zeros(5, bool)) == 0.0


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape).T - np.array(centre)
    return (np.linalg.norm(grid, axis=-1) < radius).T


def test_a_ct_body_holds_its_lungs_and_not_the_table():
    shape = (60, 60, 20)
    values = np.full(shape, -1000.0, np.float32)
    body = ball((60, 60), (30, 28), 20)[..., None] & np.ones(20, bool)
    lungs = ball((60, 60), (24, 28), 7)[..., None] & np.ones(20, bool)
    values[body] = 40
    values[lungs] = -850  # through the whole scan: open at both ends
    values[:, 54:56] = 200  # the table
    np.testing.assert_array_equal(body_mask(values, "CT"), body)


def test_an_empty_scan_has_no_body():
    assert not body_mask(np.full((5, 5, 5), -1000.0, np.float32), "CT").any()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), gain=st.floats(0.1, 50))
def test_an_mr_profile_spans_the_head_whatever_its_gain(seed: int, gain: float):
    rng = np.random.default_rng(seed)
    head = ball((40, 40, 40), (20, 20, 20), 15)
    values = np.abs(rng.normal(0, 8, head.shape)) + head * rng.uniform(300, 900, head.shape)
    profile = fit_mr_profile((gain * values).astype(np.float32))
    expected = np.percentile(gain * values[head], (0.5, 99.5))
    np.testing.assert_allclose([profile.knots[0][0], profile.knots[-1][0]], expected, rtol=0.02)
    mask = body_mask((gain * values).astype(np.float32), "MR")
    assert np.count_nonzero(mask ^ head) < 0.01 * np.count_nonzero(head)


def test_an_mr_profile_does_not_depend_on_voxel_order():
    values = np.random.default_rng(0).gamma(2, 100, (12, 14, 16)).astype(np.float32)
    profile = fit_mr_profile(values)
    for order in permutations(range(3)):
        assert fit_mr_profile(values.transpose(order)[::-1]) == profile


def test_dark_fluid_of_a_masked_brain_is_foreground():
    """CSF on T1 lies below a tenth of the range; where the background is exactly 0, it is no background."""
    values = np.zeros((20, 20, 20), np.float32)
    values[4:16, 4:16, 4:16] = 800.0
    values[8:12, 8:12, 8:12] = 40.0  # 64 of 1728 voxels
    assert fit_mr_profile(values).knots[0] == (40.0, 0.0)
    assert fit_mr_profile(values[3:17, 3:17, 3:17]).knots[0] == (40.0, 0.0)  # cropped close to the head


def test_an_mr_scan_without_contrast_is_refused():
    with pytest.raises(InputError, match="no contrast"):
        fit_mr_profile(np.full((4, 4, 4), 7.0, np.float32))


def test_real_bodies_are_found(shared_data: Path):
    """Between a tenth and nine tenths of each scan, in one piece; the labelled structures lie inside."""
    for record in json.loads((shared_data / "index.json").read_text()):
        volume = read_volume(shared_data / record["path"])
        body = body_mask(volume.values(), volume.modality)
        assert 0.1 < body.mean() < 0.9, record["path"]
        if record["seg_path"] is not None:
            labels = read_volume(shared_data / record["seg_path"], modality="MR").voxels > 0
            assert body[labels].mean() > 0.95, record["path"]

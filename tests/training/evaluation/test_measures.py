"""The measures behind the figures, on numbers small enough to check by hand."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meduet_training.evaluation.card.paired_truth import histogram_matched, pointwise_mapped, scaled
from meduet_training.evaluation.metrics.estimates import estimate, mean_estimate
from meduet_training.evaluation.metrics.linear_code import LinearCode
from meduet_training.evaluation.metrics.masks import dice, mask_dice, threshold_masks, visible_masks
from meduet_training.evaluation.metrics.noise import moved_fraction, soft_tissue_noise
from meduet_training.evaluation.metrics.probes import balanced_accuracy, probe
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table, write_section
from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import Volume


def ct(values: np.ndarray, spacing=(1.0, 1.0, 2.0)) -> Volume:
    affine = nib.affines.from_matvec(np.diag(spacing), (0, 0, 0))
    return Volume(voxels=values, affine=affine, modality="CT", unit="HU", sha256="0" * 64)


def test_dice_by_hand():
    one, other = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 0], bool)
    assert dice(one, other) == pytest.approx(2 * 2 / 5)
    assert dice(one, one) == 1.0
    assert dice(one, ~one) == 0.0
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1.0


def test_thresholds_tell_body_lung_and_bone():
    values = np.full((12, 12, 3), -1000.0)
    values[1:11, 1:11] = 40.0
    values[3:6, 3:6] = -800.0  # air in the body is lung, air around it is not
    values[8, 8] = 700.0
    masks = threshold_masks(ct(values), smoothed=False)
    assert masks["body"].sum() == (100 - 9) * 3
    assert masks["lung"].sum() == 9 * 3
    assert masks["bone"].sum() == 3


def test_a_mask_that_noise_crosses_agrees_once_smoothed():
    """Half of the bone lies 25 HU over its threshold: noise takes voxels away that smoothing gives back."""
    values = np.full((40, 40, 20), 40.0)
    values[10:30, 10:30] = 500.0
    values[10:20, 10:30] = 275.0
    noisy = values + np.random.default_rng(0).normal(0, 25, values.shape)
    plain, smooth = (mask_dice(ct(values), ct(noisy), smoothed=smoothed) for smoothed in (False, True))
    assert plain["bone"] < 0.97 < smooth["bone"]


def test_what_is_hardly_there_is_not_compared():
    values = np.full((40, 40, 20), 40.0)
    values[20, 20, 10] = -800.0  # a bubble of gas in 32 000 voxels
    assert visible_masks(ct(values)) == ["body"]


def test_noise_is_the_deviation_from_the_plane_mean():
    """White noise loses the ninth that its own plane mean takes: sqrt(8/9) of 10 HU."""
    rng = np.random.default_rng(0)
    values = 60.0 + rng.normal(0, 10, (60, 60, 20))
    assert soft_tissue_noise(ct(values)) == pytest.approx(10 * np.sqrt(8 / 9), rel=0.03)


def test_noise_counts_tissue_and_its_planes_only():
    rng = np.random.default_rng(0)
    values = np.full((60, 60, 20), 60.0)
    values[:, :, 1::2] = 20.0  # from slice to slice: not noise of a plane
    values[:30] = -800 + rng.normal(0, 100, (30, 60, 20))  # lung
    assert soft_tissue_noise(ct(values)) == 0.0
    assert soft_tissue_noise(ct(np.moveaxis(values, 2, 0), spacing=(2.0, 1.0, 1.0))) == 0.0


def test_moved_share_by_hand_in_both_directions():
    assert moved_fraction(content=5.0, style=25.0, result=20.0) == pytest.approx(0.75)
    assert moved_fraction(content=25.0, style=5.0, result=10.0) == pytest.approx(0.75)
    assert moved_fraction(content=5.0, style=25.0, result=5.0) == 0.0
    assert moved_fraction(content=25.0, style=5.0, result=27.0) == pytest.approx(-0.1)


def test_a_probe_reads_what_is_written_and_nothing_else():
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{k}" for k in range(6)], 20)
    domains = np.tile(np.repeat(["a", "b"], 10), 6)
    told = np.stack([domains == "a", rng.random(120)], axis=1) + rng.normal(0, 0.01, (120, 2))
    assert probe(told, domains, patients, seed=0).accuracy.value == 1.0
    untold = probe(rng.normal(size=(120, 2)), domains, patients, seed=0)
    assert untold.accuracy.value == pytest.approx(0.5, abs=0.15)
    assert (untold.chance, untold.majority, untold.num_folds) == (0.5, 0.5, 5)


def test_a_probe_is_judged_on_patients_it_never_saw():
    """Each patient has one domain and a look of its own: legible within patients, and not across them."""
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(10), 30)
    domains = np.where(patients % 2, "a", "b")
    looks = rng.normal(0, 10, (10, 4))[patients] + rng.normal(0, 0.1, (300, 4))
    assert probe(looks, domains, patients.astype(str), seed=0).accuracy.value < 0.8


def test_patients_that_only_teach_are_not_judged():
    """Patients a to d are told apart by one feature; of e and f, who are not, one half is right by luck."""
    patients = np.repeat(list("abcdef"), 20)
    domains = np.tile(np.repeat(["smooth", "sharp"], 10), 6)
    told = np.isin(patients, list("abcd"))
    features = np.where(told, domains == "sharp", 0.0)[:, None]
    found = [probe(features, domains, patients, 0, judged).accuracy for judged in (None, told, ~told)]
    assert [accuracy.value for accuracy in found] == pytest.approx([5 / 6, 1.0, 0.5])
    assert [accuracy.num_patients for accuracy in found] == [6, 4, 2]


def test_a_probe_needs_two_patients():
    with pytest.raises(ValueError, match="two patients"):
        probe(np.zeros((4, 2)), np.array(["a", "a", "b", "b"]), np.array(["p"] * 4), seed=0)


def test_balanced_accuracy_by_hand():
    truth, found = np.array(["a", "a", "a", "b"]), np.array(["a", "a", "b", "b"])
    assert balanced_accuracy(truth, found) == pytest.approx((2 / 3 + 1) / 2)


def test_intervals_draw_patients_not_samples():
    many = mean_estimate([0.0, 1.0] * 50, [f"p{k}" for k in range(100)], seed=0)
    two = mean_estimate([0.0, 1.0] * 50, ["p0", "p1"] * 50, seed=0)
    assert many.value == two.value == 0.5
    assert (two.low, two.high) == (0.0, 1.0)  # either patient may be drawn twice
    assert 0.35 < many.low < 0.5 < many.high < 0.65
    assert (two.num_samples, two.num_patients) == (100, 2)


def test_one_patient_has_no_interval():
    single = estimate(lambda indices: float(len(indices)), ["p"] * 3, seed=0)
    assert (single.low, single.value, single.high) == (3.0, 3.0, 3.0)


def test_a_linear_code_of_four_keeps_four_directions():
    """Cubes that are mixtures of four patterns come back; of five, they do not."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(5, 4, 4, 4))

    def volume(count: int) -> np.ndarray:
        weights = rng.normal(size=(3, 3, 3, count))
        cubes = np.einsum("xyzk,kpqr->xpyqzr", weights, patterns[:count])
        return cubes.reshape(12, 12, 12).astype(np.float32)

    everywhere = np.ones((12, 12, 12), bool)
    for count, is_kept in ((4, True), (5, False)):
        scans = [volume(count) for _ in range(2)]
        code = LinearCode.fit(((scan, everywhere) for scan in scans), (4, 4, 4), 4)
        assert np.allclose(code.reconstruct(scans[0]), scans[0], atol=1e-3) == is_kept


@settings(max_examples=10)
@given(shape=st.tuples(*[st.integers(4, 11)] * 3))
def test_a_linear_code_takes_any_size(shape):
    volume = np.full(shape, 0.3, np.float32)
    code = LinearCode.fit([(volume, np.ones(shape, bool))], (4, 4, 4), 4)
    assert np.allclose(code.reconstruct(volume), volume, atol=1e-5)


def test_scaling_puts_percentiles_at_0_and_1():
    assert np.percentile(scaled(np.arange(101.0) * 3 + 7), (1, 99)) == pytest.approx((0, 1))


def test_histogram_matching_undoes_a_monotone_change():
    values = np.random.default_rng(0).gamma(2.0, size=20_000)
    assert np.abs(histogram_matched(np.sqrt(values), values) - values).mean() < 0.01


def test_the_pointwise_map_inverts_what_histograms_cannot():
    source = np.random.default_rng(0).random(50_000)
    target = 1.0 - source  # bright becomes dark: in order, no histogram can tell
    assert np.abs(pointwise_mapped(source, source, target) - target).mean() < 0.01
    assert np.abs(histogram_matched(source, target) - target).mean() > 0.4


def example(value: float, **goal: float) -> Metric:
    return Metric(name="example", estimate=mean_estimate([value], ["p"], seed=0), **goal)


def test_goals_in_words():
    assert example(0.9, at_least=0.85).is_reached
    assert not example(0.8, at_least=0.85).is_reached
    assert not example(0.4, at_most=0.3).is_reached
    assert (example(0.4, at_most=0.3).goal, example(0.4).goal) == ("≤ 0.3", "")


def test_a_section_replaces_only_itself(tmp_path):
    table = Table(title="pairs", columns=("a", "b"), rows=[("x", 0.12345), ("y", None)])
    part = EvaluationSection(
        title="Part", description="Measured.", metrics=(example(0.5),), tables=(table,), seed=7
    )
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- metrics: x -->\nold\n<!-- end of metrics: x -->\nafter\n")
    for _ in range(2):
        write_section(page, "x", part.as_markdown())
    text = page.read_text()
    assert text.startswith("before\n<!-- metrics: x -->\n\n### Part")
    assert text.endswith("<!-- end of metrics: x -->\nafter\n")
    assert text.count("### Part") == 1
    assert "| x | 0.123 |\n| y | – |" in text
    assert "old" not in text
    with pytest.raises(InputError, match="markers"):
        write_section(page, "y", "text")

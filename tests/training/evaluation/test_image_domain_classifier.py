"""The image classifier sees looks, on phantoms whose look is known."""

import numpy as np
import pytest

from meduet_training.evaluation.card.swapped_pairs import choose_pairs, gradient_correlation
from meduet_training.evaluation.metrics.image_domain_classifier import ImageDomainClassifier, image_features


def body(noise: float, seed: int, shift: float = 0.0) -> np.ndarray:
    """A cylinder of soft tissue in air."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, side) for side in (70, 60, 40)), indexing="ij")
    inside = x**2 + y**2 < 0.8
    return np.where(inside, 50.0 + shift + rng.normal(0, noise, inside.shape), -1000.0).astype(np.float32)


@pytest.fixture(scope="module")
def classifier() -> ImageDomainClassifier:
    images = [image_features(body(noise, seed), "CT") for noise in (4.0, 25.0) for seed in range(3)]
    return ImageDomainClassifier.fit(images, ["smooth"] * 3 + ["sharp"] * 3)


def test_more_noise_speaks_for_the_noisy_domain(classifier):
    smooth, half_way, sharp = (image_features(body(noise, 9), "CT") for noise in (4.0, 12.0, 25.0))
    odds = [classifier.log_odds(image, "sharp") for image in (smooth, half_way, sharp)]
    assert odds[0] < odds[1] < odds[2]
    assert odds[0] < 0 < odds[2]
    assert (classifier.predict(smooth), classifier.predict(sharp)) == ("smooth", "sharp")


def test_the_odds_of_two_domains_are_opposite(classifier):
    image = image_features(body(12.0, 9), "CT")
    assert classifier.log_odds(image, "sharp") == pytest.approx(-classifier.log_odds(image, "smooth"))


def test_the_scale_of_mr_says_nothing():
    signal = body(12.0, 0) + 1000.0
    assert np.allclose(image_features(signal, "MR"), image_features(signal * 7.0, "MR"), atol=1e-3)


def test_air_gives_no_rows():
    assert image_features(np.full((20, 20, 20), -1000.0, np.float32), "CT").shape[0] == 0


def test_gradients_correlate_with_themselves_and_not_with_noise():
    one, mask = body(4.0, 0), np.ones((70, 60, 40), bool)
    assert gradient_correlation(one, 2.0 * one + 5.0, mask) == pytest.approx(1.0)
    noise = np.random.default_rng(1).normal(size=one.shape)
    assert abs(gradient_correlation(one, noise, mask)) < 0.05


def test_pairs_are_drawn_evenly_and_never_within_a_domain(tmp_path):
    from meduet_training.data.cohort.scans import Scan

    def scan(name: str, domain: str, modality: str) -> Scan:
        return Scan(
            path=tmp_path / f"{name}.nii.gz",
            domain=domain,
            patient=name,
            modality=modality,
            split="test",
            licence="CC0",
            may_train=True,
        )

    styles = [scan(f"s{k}", f"ct-chest-{k}", "CT") for k in range(6)]
    contents = [scan(f"c{k}", f"ct-chest-{k}", "CT") for k in range(3)]
    pairs = choose_pairs(contents, styles, 9, seed=0)
    assert [sum(content is one for one, _ in pairs) for content in contents] == [3, 3, 3]
    assert all(content.domain != style.domain for content, style in pairs)
    assert len(set(map(id, (style for _, style in pairs)))) > 1
    assert pairs == choose_pairs(contents, styles, 9, seed=0)

    brain = [scan("b", "mr-brain-x-T1", "MR")]
    others = [scan("t", "mr-extremity-y-T1", "MR"), scan("u", "mr-brain-x-T2", "MR")]
    assert [style.patient for _, style in choose_pairs(brain, others, 9, seed=0)] == ["u"]

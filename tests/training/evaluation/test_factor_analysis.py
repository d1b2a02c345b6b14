"""A factor that knows the domain is told from one that does not, and what cannot be judged is said."""

import csv
import json

import numpy as np
import pytest

from meduet_training.evaluation.factors.analysis import FactorSamples, analyse_factors, write_factors


def samples(num_patients: int = 4, num_domains: int = 3, crops: int = 5) -> FactorSamples:
    """Styles that are their domain's, contents that are their patient's; both with noise."""
    rng = np.random.default_rng(0)
    domains, patients, styles, contents = [], [], [], []
    for domain in range(num_domains):
        look = 4 * rng.normal(size=6)
        for patient in range(num_patients):
            body = 4 * rng.normal(size=8)
            for _ in range(crops):
                domains.append(f"site {domain}")
                patients.append(f"patient {domain}.{patient}")
                styles.append(look + rng.normal(size=6))
                contents.append(body + rng.normal(size=8))
    return FactorSamples(
        content=np.array(contents),
        style=np.array(styles),
        domains=np.array(domains, object),
        patients=np.array(patients, object),
        extractor_sha256="f" * 64,
        source="Made up.",
    )


def test_style_that_knows_the_domain_is_told_from_content_that_knows_the_patient():
    analysis = analyse_factors(samples(), seed=0, with_maps=False)
    style, content = analysis.style, analysis.content
    assert style.probe.accuracy.low > 0.9
    assert content.probe.accuracy.high < 0.8  # judged on patients that it did not learn from
    assert style.probe.chance == pytest.approx(1 / 3)
    assert (style.probe.accuracy.num_samples, style.probe.accuracy.num_patients) == (60, 12)
    assert style.silhouette.low > 0.3 > content.silhouette.high
    assert style.embedding is None


def test_a_domain_of_one_patient_is_not_probed():
    given = samples()
    given.patients[given.domains == "site 2"] = "one"
    analysis = analyse_factors(given, seed=0, with_maps=False)
    assert (analysis.num_probed, analysis.style.probe.num_domains) == (40, 2)
    given.patients[given.domains == "site 1"] = "another"
    analysis = analyse_factors(given, seed=0, with_maps=False)
    assert (analysis.num_probed, analysis.style.probe) == (0, None)
    assert analysis.why_no_probe == (
        "A probe needs two domains with two patients each; 1 of 3 domains has two patients."
    )
    assert analysis.why_no_probe in analysis.as_markdown()


def test_one_domain_has_neither_probe_nor_silhouette():
    analysis = analyse_factors(samples(num_domains=1), seed=0, with_maps=False)
    assert (analysis.style.probe, analysis.style.silhouette) == (None, None)


def test_factors_that_are_not_finite_end_no_training():
    given = samples()
    given.style[3, 1] = np.nan
    analysis = analyse_factors(given, seed=0)
    assert (analysis.style.probe, analysis.style.silhouette, analysis.num_probed) == (None, None, 0)
    assert "not finite" in analysis.as_markdown()


def test_files_hold_the_numbers_and_no_more_than_hashes(tmp_path):
    analysis = analyse_factors(samples(), seed=3)
    write_factors(analysis, tmp_path)
    data = json.loads((tmp_path / "factors.json").read_text())
    assert data == analysis.as_data()
    assert data["seed"] == 3
    assert data["factors"]["style"]["probe"]["accuracy"]["value"] == analysis.style.probe.accuracy.value
    with (tmp_path / "factors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    first = analysis.style.embedding[0]
    assert [float(rows[0][f"style_map_{axis}"]) for axis in "xy"] == pytest.approx(first.tolist(), rel=1e-4)
    assert float(rows[7]["content_5"]) == pytest.approx(analysis.samples.content[7, 5], rel=1e-4)


def test_the_same_samples_and_seed_give_the_same_analysis():
    one, two = (analyse_factors(samples(), seed=0) for _ in range(2))
    assert one.as_data() == two.as_data()
    assert np.array_equal(one.style.embedding, two.style.embedding)


def test_the_terminal_is_told_all_that_a_figure_needs():
    text = analyse_factors(samples(), seed=5, with_maps=False).as_markdown()
    for word in ("60 / 12", "Seed 5", "Extractor ffffffffffffffff", "chance 0.333, majority 0.333", "95 %"):
        assert word in text

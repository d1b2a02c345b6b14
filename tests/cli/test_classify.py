"""`meduet classify`, as people and scripts use it."""

import json

import pytest
from typer.testing import CliRunner

from napari_meduet.cli import app


def meduet(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_classes_are_printed_the_most_probable_first(classifying_model, smooth_ct, tmp_path):
    answer = tmp_path / "answer.json"
    result = meduet("classify", smooth_ct, "--model", classifying_model, "-o", answer)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()[:2]]
    shares = {name: float(share.rstrip("%")) for name, share in rows}
    assert sorted(shares) == ["benign", "malignant"]
    assert [*shares.values()] == sorted(shares.values(), reverse=True)
    record = json.loads(answer.read_text())
    assert record["class"] == rows[0][0]
    assert shares[record["class"]] == pytest.approx(100 * record["probabilities"][record["class"]], abs=0.005)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-o", "answer.txt"], "--output must end in .json"),
        (["-o", "nowhere/answer.json"], "its folder does not exist"),
        (["--model", "nowhere"], "card.json"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    classifying_model, smooth_ct, tmp_path, monkeypatch, words, named
):
    monkeypatch.chdir(tmp_path)
    result = meduet("classify", smooth_ct, "--model", classifying_model, *words)
    assert result.exit_code == 2
    assert named in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_classifier_is_one_sentence(tiny_model, smooth_ct):
    result = meduet("classify", smooth_ct, "--model", tiny_model)
    assert result.exit_code == 2
    assert "has no classifier" in result.stderr

"""Teaching a segmenter on the spot: what it learns from, when it stops, and what is kept of it."""

import numpy as np
import pytest
import torch
from tiny import save_phantom, save_tiny_model

from napari_meduet.errors import Cancelled, InputError
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.requests import SegmentRequest, TeachRequest
from napari_meduet.pipelines.segmentation import finetuning as teaching
from napari_meduet.pipelines.segmentation.finetuning import teach
from napari_meduet.pipelines.segmentation.session import segment
from napari_meduet.volumes.files import read_volume


@pytest.fixture(autouse=True)
def few_poses(monkeypatch):
    monkeypatch.setattr(teaching, "POSES_AIMED_AT", 2)


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "deep", depth=4)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return save_phantom(tmp_path_factory.mktemp("scans") / "scan.nii.gz")


@pytest.fixture(scope="module")
def organ(scan):
    values = read_volume(scan).values()
    return np.where((values > 65) & (values < 150), 3, 0).astype(np.int32)


@pytest.fixture(scope="module")
def taught(deep_model, scan, organ):
    return teach(TeachRequest([(scan, organ)], {3: "organ"}, model=deep_model, steps=12))


def test_the_curve_is_told_and_the_progress_runs_to_its_end(deep_model, scan, organ):
    points, fractions = [], []
    teach(
        TeachRequest([(scan, organ)], {3: "organ"}, model=deep_model, steps=7),
        lambda fraction, doing: fractions.append(fraction),
        points.append,
    )
    assert [point.step for point in points] == [5, 7]
    assert fractions == sorted(fractions)
    assert 0.9 < fractions[-1] <= 1.0


def test_the_same_request_teaches_the_same(deep_model, scan, organ):
    request = TeachRequest([(scan, organ)], {3: "organ"}, model=deep_model, steps=3, seed=4)
    assert teach(request).sha256 == teach(request).sha256


def test_what_was_taught_segments_as_it_does_from_its_folder(taught, scan, tmp_path):
    own = taught.segment(scan)
    taught.save(tmp_path / "mine", "mine")
    model = load_model(tmp_path / "mine", "cpu")
    saved = segment(SegmentRequest(scan, model=tmp_path / "mine", device="cpu"))
    assert np.array_equal(own.labels, saved.labels)
    assert own.names == saved.names == {3: "organ"}
    assert model.card.files["segmenter.safetensors"].sha256 == taught.sha256
    assert model.card.segmenter.training["taught"] is True
    assert set(np.unique(own.labels)) <= {0, 3}


def test_a_folder_that_has_a_model_is_left_alone(taught, tmp_path):
    taught.save(tmp_path / "mine")
    before = (tmp_path / "mine" / "card.json").read_bytes()
    with pytest.raises(InputError, match="exist"):
        taught.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "card.json").read_bytes() == before


def test_whoever_is_satisfied_keeps_what_was_learnt(deep_model, scan, organ):
    asked = iter(range(100))
    request = TeachRequest([(scan, organ)], {3: "organ"}, model=deep_model, steps=50)
    assert teach(request, should_stop=lambda: next(asked) == 4).steps == 4


def test_cancel_is_heard_between_two_layers(deep_model, scan, organ):
    heard = []

    def on_progress(fraction: float, doing: str) -> None:
        if "learning" in doing:
            heard.append(doing)
        if len(heard) > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        teach(TeachRequest([(scan, organ)], {3: "organ"}, model=deep_model, steps=50), on_progress)
    assert set(heard) == {"learning, step 1 of 50"}


def test_where_strokes_were_painted_the_rest_is_unknown(deep_model, scan, organ, monkeypatch):
    seen = []
    real = teaching.make_example
    monkeypatch.setattr(teaching, "make_example", lambda *given: seen.append(real(*given)) or seen[-1])
    strokes = np.where(organ == 3, 3, 0)
    strokes[20:24, 18:20] = 1
    request = TeachRequest([(scan, strokes)], {3: "organ"}, background=1, model=deep_model, steps=1)
    teach(request)
    assert set(torch.unique(seen[0].target).tolist()) == {0, 1, 255}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"examples": []}, "no example"),
        ({"names": {}}, "at least one structure"),
        ({"names": {0: "air"}}, "1 or more"),
        ({"names": {1: "a", 2: "a"}}, "same name"),
        ({"names": {1: " "}}, "needs a name"),
        ({"names": {1: "a"}, "background": 1}, "not the"),
        ({"steps": 0}, "steps"),
    ],
)
def test_a_request_that_cannot_be_is_refused(changes, sentence):
    request = {"examples": [("a.nii.gz", "b.nii.gz")], "names": {1: "organ"}} | changes
    with pytest.raises(InputError, match=sentence):
        TeachRequest(**request)


def test_labels_that_show_nothing_of_it_are_refused(deep_model, scan, organ):
    with pytest.raises(InputError, match="none of the classes"):
        teach(TeachRequest([(scan, organ)], {5: "other"}, model=deep_model, steps=1))


def test_labels_on_another_grid_are_refused(deep_model, scan, organ):
    with pytest.raises(InputError, match="labels measure"):
        teach(TeachRequest([(scan, organ[1:])], {3: "organ"}, model=deep_model, steps=1))


def test_it_does_not_segment_what_it_was_not_taught_on(taught, tmp_path):
    with pytest.raises(InputError, match="taught on CT"):
        taught.segment(save_phantom(tmp_path / "brain.nii.gz", "MR"))


def test_an_encoder_of_too_few_blocks_is_refused(tiny_model, scan, organ):
    with pytest.raises(InputError, match="larger encoder"):
        teach(TeachRequest([(scan, organ)], {3: "organ"}, model=tiny_model, steps=1))


def test_a_save_that_fails_leaves_nothing(taught, tmp_path, monkeypatch):
    def full(*given, **named):
        raise InputError("no room")

    monkeypatch.setattr("napari_meduet.pipelines.segmentation.finetuned.save_segmenter", full)
    with pytest.raises(InputError, match="no room"):
        taught.save(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []

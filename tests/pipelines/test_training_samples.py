"""Labelled scans as networks learn from them: what labels mean, poses, and what a crop shows."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import save_phantom

from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.pipelines.segmentation.training_samples import (
    BLOCK,
    LARGEST_SHIFTS,
    TONES,
    LabelMap,
    SpatialAugmentation,
    TrainingSample,
    choose_example,
    class_map,
    draw_crop,
    make_example,
    posed,
    read_crop,
)
from napari_meduet.volumes.files import read_volume

ORGAN = LabelMap(classes={7: 1}, annotated=(True, True))


@pytest.fixture
def scan(tiny_model, tmp_path):
    model = load_model(tiny_model, "cpu")
    volume = read_volume(save_phantom(tmp_path / "scan.nii.gz"))
    return model, prepare_scan(model, volume)


def organ_of(prepared) -> np.ndarray:
    """The phantom's organ, labelled 7, by its 90 HU."""
    values = prepared.volume.values()
    return np.where((values > 65) & (values < 150), 7, 0)


def test_numbers_become_classes_and_others_background():
    meaning = LabelMap(classes={3: 1, 9: 2}, annotated=(True,) * 3, ignored=frozenset({5}))
    assert meaning.target(np.array([[[0, 3, 9, 5, 4]]])).tolist() == [[[0, 1, 2, IGNORED, 0]]]


def test_names_are_joined_to_classes_and_tell_what_was_looked_for():
    classes = {"lung": ["lung", "lung_left", "lung_right"], "heart": ["heart"], "liver": ["liver"]}
    meaning = class_map({1: "lung_left", 2: "lung_right", 8: "heart", 9: "rib"}, classes)
    assert meaning.classes == {1: 1, 2: 1, 8: 2}
    assert meaning.annotated == (True, True, True, False)


def test_in_its_own_pose_an_example_is_the_scan(scan):
    model, prepared = scan
    labels = organ_of(prepared)
    example = make_example(model, prepared, labels, ORGAN)
    inside = np.s_[prepared.before[0] :, prepared.before[1] :, prepared.before[2] :]
    working = prepared.grid.labels_to_working(labels)
    x, y, z = working.shape
    assert np.array_equal(example.target.numpy()[inside][:x, :y, :z] == 1, working == 7)
    assert example.target.shape == tuple(4 * side for side in example.mean.shape[1:])


def test_the_padding_is_unknown(scan):
    model, prepared = scan
    example = make_example(model, prepared, organ_of(prepared), ORGAN)
    known = int((example.target != IGNORED).sum())
    assert known == int(np.prod(prepared.grid.shape)) < example.target.numel()


def test_where_strokes_leave_all_else_unknown_the_air_around_the_body_is_background(scan):
    model, prepared = scan
    labels = organ_of(prepared)
    strokes = LabelMap(classes={7: 1}, annotated=(True, True), ignored=frozenset({0}))
    target = make_example(model, prepared, labels, strokes).target.numpy()
    (x, y, z), before = prepared.grid.shape, prepared.before
    target = target[before[0] :, before[1] :, before[2] :][:x, :y, :z]
    assert prepared.air.mean() > 0.2
    assert (target[prepared.air] == 0).all()
    assert (target[prepared.body] != 0).all()
    assert (target == 1).any()


def test_labels_without_a_class_are_refused(scan):
    model, prepared = scan
    with pytest.raises(InputError, match="none of the classes"):
        make_example(model, prepared, np.zeros(prepared.volume.voxels.shape, int), ORGAN)


def test_a_quarter_turn_is_a_quarter_turn():
    volume = torch.randn(1, 1, 6, 6, 5)
    turned = posed(volume, SpatialAugmentation(degrees=(0.0, 0.0, 90.0)), "bilinear")
    assert any(torch.allclose(turned, volume.rot90(k, (2, 3)), atol=1e-5) for k in (1, -1))


def test_twice_as_large_shows_the_middle_half():
    ramp = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 1, 8, 8, 8)
    larger = posed(ramp, SpatialAugmentation(scale=2.0), "bilinear")
    torch.testing.assert_close(larger[0, 0, :, 4, 4], torch.linspace(1.75, 5.25, 8))


def test_beyond_a_turned_scan_nothing_is_known():
    volume = torch.zeros(1, 1, 8, 8, 8)
    turned = posed(volume, SpatialAugmentation(degrees=(0.0, 0.0, 45.0)), "nearest", outside=IGNORED)
    assert turned[0, 0, 0, 0, 4] == IGNORED
    assert turned[0, 0, 4, 4, 4] == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), modality=st.sampled_from(["CT", "MR"]))
def test_a_drawn_pose_keeps_tones_in_order_and_air_as_it_is(seed, modality):
    pose = SpatialAugmentation.drawn(torch.Generator().manual_seed(seed), modality)
    assert pose.tones[0] == 0.0
    assert list(pose.tones) == sorted(pose.tones)
    assert max(pose.tones) <= 1.0
    assert len(pose.tones) == len(TONES)
    moved = max(abs(tone - own) for tone, own in zip(pose.tones, TONES, strict=True))
    assert moved <= LARGEST_SHIFTS[modality]
    turn = pose.matrix() * pose.scale
    torch.testing.assert_close(turn @ turn.T, torch.eye(3))


def example_with(place: tuple[int, int, int], side: int = 40) -> TrainingSample:
    """An example of 160 voxels along each axis, with one voxel of class 1."""
    target = torch.zeros((4 * side,) * 3, dtype=torch.uint8)
    target[place] = 1
    latent = torch.arange(float(side)).view(1, side, 1, 1).expand(4, side, side, side)
    return TrainingSample(
        mean=latent,
        log_variance=torch.full_like(latent, -60.0),
        body=torch.ones(side, side, side),
        target=target,
        annotated=torch.tensor([True, True]),
        modality="CT",
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    place=st.tuples(*[st.integers(0, 159)] * 3),
)
def test_a_crop_lies_in_its_example_and_its_block_in_the_crop(seed, place):
    example, size = example_with(place), (24, 24, 24)
    around = [None, 0][seed % 2]
    crop = draw_crop(example, around, size, (4, 4, 4), torch.Generator().manual_seed(seed))
    assert all(0 <= corner <= 40 - 24 for corner in crop.corner)
    assert all(0 <= block <= 24 - BLOCK for block in crop.block)


def test_a_block_drawn_around_a_class_shows_it():
    example, size = example_with((150, 3, 77)), (24, 24, 24)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        row = read_crop(
            example, draw_crop(example, 0, size, (4, 4, 4), generator), size, (4, 4, 4), generator
        )
        assert bool((row["target"] == 1).any())


def test_a_class_that_one_scan_shows_is_as_likely_as_one_that_all_show():
    generator = torch.Generator().manual_seed(0)
    chosen = [choose_example([(1,), (1,), (1, 5), ()], generator) for _ in range(4000)]
    kinds = Counter(
        ([(1,), (1,), (1, 5), ()][number] + (None,))[around]
        for number, around in chosen
        if around is not None
    )
    assert kinds[5] == pytest.approx(kinds[1], rel=0.1)
    anywhere = Counter(number for number, around in chosen if around is None)
    assert sum(anywhere.values()) == pytest.approx(0.3 * 4000, rel=0.1)
    assert len(anywhere) == 4  # also the one in which nothing was found


def test_the_target_is_that_of_the_block():
    example, size = example_with((0, 0, 0)), (24, 24, 24)
    example.target[...] = torch.arange(160).view(-1, 1, 1) // 4  # as the latent counts
    generator = torch.Generator().manual_seed(3)
    crop = draw_crop(example, None, size, (4, 4, 4), generator)
    row = read_crop(example, crop, size, (4, 4, 4), generator)
    first = int(crop.block[0])
    torch.testing.assert_close(
        row["latent"][0, first : first + BLOCK, 0, 0], row["target"][::4, 0, 0].float()
    )

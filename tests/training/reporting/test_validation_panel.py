"""The panel shows what it says: windows, sides, swaps that differ, and no word over another."""

import numpy as np
import pytest
import torch
import watching
from small import random_windows

from meduet_training.data.sources.validation_crops import evenly, window_crops
from meduet_training.evaluation.factors.validation import (
    SHOWN,
    CropSlices,
    choose_crops,
    measure_crops,
    slices_of_crops,
)
from meduet_training.reporting import palette, panels
from meduet_training.reporting.validation_panel import validation_panel
from napari_meduet.tokenizers.tiling import decode_tiled
from napari_meduet.volumes.intensity import CT_FULL

SIDE = 32


def flat(modality, **values) -> CropSlices:
    """Two crops of one grey each; what is not given is 0.5 in profile units."""
    grey = {name: np.full((2, SIDE, SIDE), values.get(name, 0.5)) for name in ("inputs", "reconstructions")}
    swaps = np.full((2, 2, SIDE, SIDE), values.get("swaps", 0.5))
    return CropSlices(
        modality=modality,
        ct_profile=CT_FULL,
        domains=("site a", "site b"),
        body=np.ones((2, SIDE, SIDE), bool),
        swaps=swaps,
        **grey,
    )


def left_of(column: int) -> int:
    """The first pixel of a column."""
    left = panels.MARGIN + panels.LABEL + column * (panels.TILE + panels.GAP)
    return left + (panels.WIDE_GAP - panels.GAP) * (column >= 3)


def tile(picture, row: int, column: int) -> np.ndarray:
    """The pixels of a tile; columns are input, reconstruction, difference, swaps. Row -1 holds the styles."""
    top = panels.MARGIN + 38
    if row >= 0:
        top += panels.TILE + panels.GAP + 24 + row * (panels.TILE + panels.GAP)
    left = left_of(column)
    return np.asarray(picture)[top : top + panels.TILE, left : left + panels.TILE]


def middle(picture, row: int, column: int) -> list[int]:
    return tile(picture, row, column)[panels.TILE // 2, panels.TILE // 2].tolist()


def units(hu: float) -> float:
    return float(CT_FULL.encode(np.array([hu]))[0])


@pytest.mark.parametrize(
    ("hu", "grey"), [(-160, 0), (40, 127), (240, 255), (1000, 255)]
)  # soft tissue: level 40, width 400
def test_ct_is_shown_in_the_soft_tissue_window(hu, grey):
    picture = validation_panel(flat("CT", inputs=units(hu)), "", "")
    assert middle(picture, 0, 0) == pytest.approx([grey] * 3, abs=1)


def test_a_slice_with_lung_has_a_row_in_the_lung_window_too():
    lung = validation_panel(flat("CT", inputs=units(-600)), "", "")
    soft = validation_panel(flat("CT", inputs=units(40)), "", "")
    assert lung.height - soft.height == 2 * (panels.TILE + panels.GAP)
    assert middle(lung, 0, 0) == [0, 0, 0]  # soft tissue
    assert middle(lung, 1, 0) == pytest.approx([127] * 3, abs=1)  # level -600, width 1500


@pytest.mark.parametrize(("change", "colour"), [(-150, palette.LESS), (150, palette.MORE)])
def test_the_difference_is_blue_below_and_orange_above(change, colour):
    shown = flat("CT", inputs=units(40), reconstructions=units(40 + change))
    picture = validation_panel(shown, "", "")
    assert middle(picture, 0, 2) == pytest.approx((255 * colour).tolist(), abs=2)


def test_the_patients_right_is_left_and_front_is_up():
    """A bright corner at the patient's right front."""
    shown = flat(None, inputs=0.0)
    shown.inputs[:, -4:, -4:] = 1.0  # X runs to the right, Y to the front
    found = tile(validation_panel(shown, "", ""), 0, 0)[..., 0]
    corner = panels.TILE // 10
    assert found[:corner, :corner].min() > 200
    assert found[-corner:].max() == found[:, -corner:].max() == 0


def test_a_swap_shows_its_own_pixels_and_its_own_style_is_framed():
    shown = flat(None, inputs=0.2, swaps=0.2)
    shown.swaps[0, 1] = 0.8  # the first content in the second style
    picture = validation_panel(shown, "", "")
    assert middle(picture, 0, 4) == [204, 204, 204]
    assert middle(picture, 0, 3) == middle(picture, 1, 3) == middle(picture, 0, 0) == [51, 51, 51]
    pixels = np.asarray(picture)
    top = panels.MARGIN + 38 + panels.TILE + panels.GAP + 24
    for row, column, is_own in ((0, 3, True), (0, 4, False), (1, 3, False), (1, 4, True)):
        edge = pixels[top + row * (panels.TILE + panels.GAP) + panels.TILE // 2, left_of(column) - 1]
        assert (edge.tolist() == list(palette.FRAME)) == is_own


def test_words_stay_out_of_the_pictures_and_inside_the_sheet():
    """Long names are wrapped: between the columns of words and pictures lies nothing but ground."""
    shown = flat("CT")
    shown = CropSlices(**vars(shown) | {"domains": ("ct-abdomen-" + "verylongsite-" * 6, "b")})
    picture = validation_panel(shown, "CT after 100 of 200 steps", "A note. " * 12)
    pixels = np.asarray(picture)
    ground = np.array(palette.GROUND)
    first_row = panels.MARGIN + 38 + panels.TILE + panels.GAP + 24
    left = left_of(0)
    assert (pixels[first_row:, left - 6 : left] == ground).all()
    legend = pixels[: first_row - 24, left_of(3) - panels.WIDE_GAP // 2]
    assert (legend == ground).all()
    assert (pixels[:, -panels.MARGIN // 2 :] == ground).all()


def test_content_and_style_are_where_the_picture_says():
    """The own style reconstructs; another one does not; rows are contents and columns styles."""
    crops, network = watching.crops(), watching.objective().student
    (shown,) = slices_of_crops(network, watching.tokenizer(), torch.zeros(4), torch.ones(4), crops)
    assert shown.domains == ("site 0", "site 1", "site 2", "site 0")
    latent = crops.latent[choose_crops(crops, "CT")]
    with torch.no_grad():
        whole = watching.tokenizer().decode(network.decode(*network.encode(latent)))[:, 0, :, :, 16]
    assert np.allclose(shown.reconstructions, whole, atol=1e-5)
    for k in range(SHOWN):
        assert np.array_equal(shown.swaps[k, k], shown.reconstructions[k])
    assert np.abs(shown.swaps[0, 1] - shown.reconstructions[0]).max() > 1e-4
    assert np.abs(shown.swaps[0, 1] - shown.inputs[0]).max() > 1e-4


@torch.no_grad()
def test_a_slice_is_that_of_the_whole_crop():
    """Only a slab is decoded; it shows what the whole crop would."""
    crops, tokenizer = watching.crops(), watching.tokenizer()
    mean, std = torch.full((4,), 0.2), torch.full((4,), 1.5)
    (shown,) = slices_of_crops(watching.objective().student, tokenizer, mean, std, crops)
    row = choose_crops(crops, "CT")[0]
    whole = decode_tiled(tokenizer, crops.latent[[row]] * 1.5 + 0.2)[0, 0, :, :, 16]
    assert np.allclose(shown.inputs[0], whole, atol=1e-5)


def test_a_network_that_returns_its_input_has_no_error(monkeypatch):
    crops, network = watching.crops(), watching.objective().student
    latents = iter(crops.latent.split(16))
    monkeypatch.setattr(network, "decode", lambda content, style: next(latents))
    samples, error = measure_crops(network, crops)
    assert error == 0
    assert samples.content.shape == (24, 24)
    assert samples.style.shape == (24, 12)


def test_samples_are_drawn_evenly_over_the_domains():
    domains = ["a"] * 20 + ["b"] * 3 + ["c"]
    chosen = [domains[number] for number in evenly(domains, 8, seed=0)]
    assert {name: chosen.count(name) for name in "abc"} == {"a": 4, "b": 3, "c": 1}
    assert evenly(domains, 8, seed=0) == evenly(domains, 8, seed=0) != evenly(domains, 8, seed=1)


def test_windows_give_those_that_were_scanned_with_scans_kept_together():
    crops = window_crops(random_windows(), count=100, seed=0)
    assert len(crops) == 6
    assert crops.counts() == {"site a": 3, "site b": 3}
    assert set(zip(crops.domains, crops.patients, strict=True)) == {
        ("site a", "scan 0"),
        ("site b", "scan 1"),
    }

"""Factors of scans, and the styles that scans share."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from tiny import save_tissue

from napari_meduet.core.texture import BandEnergies
from napari_meduet.errors import InputError
from napari_meduet.models.styles import load_style
from napari_meduet.pipelines import ExtractRequest, PrototypeRequest, ScanChoice, extract, make_prototype
from napari_meduet.pipelines.common.scan_texture import mean_energies


def test_factors_have_the_shapes_of_the_model(tiny_model, smooth_ct, noisy_ct):
    result = extract(ExtractRequest([smooth_ct, noisy_ct], model=tiny_model, device="cpu"))
    first = result.scans[0]
    assert (first.content.shape, first.style.shape) == ((24,), (12,))
    assert first.content_tokens.shape == (*first.coverage.shape, 24)
    assert first.style_tokens.shape == (*first.coverage.shape, 12)
    assert all(np.isfinite(scan.style).all() for scan in result.scans)
    assert not np.array_equal(first.style, result.scans[1].style)


def test_tokens_lie_on_the_patient(tiny_model, smooth_ct):
    scan = extract(ExtractRequest([smooth_ct], model=tiny_model, device="cpu")).scans[0]
    assert np.linalg.norm(scan.affine[:3, :3], axis=0) == pytest.approx(
        [24.0] * 3
    )  # M-02: 16 voxels of 1.5 mm
    # The phantom is centred on its grid, and so is the token grid.
    centre = scan.affine @ [*((side - 1) / 2 for side in scan.coverage.shape), 1]
    grid_centre = np.eye(4)
    angle = 0.1
    grid_centre[:2, :2] = -1.2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    grid_centre[2, 2] = 2.5
    grid_centre[:3, 3] = 30, 20, -40
    expected = grid_centre @ [43 / 2, 39 / 2, 25 / 2, 1]
    assert centre[:3] == pytest.approx(expected[:3], abs=0.76)  # half a working voxel, where padding is odd
    middle = tuple(side // 2 for side in scan.coverage.shape)
    assert scan.coverage[middle] > 0.9


def test_the_file_holds_digests_and_no_names(tiny_model, smooth_ct, tmp_path):
    request = ExtractRequest([smooth_ct], model=tiny_model, device="cpu")
    result = extract(request)
    result.save(tmp_path / "out.safetensors")
    tensors = load_file(tmp_path / "out.safetensors")
    assert np.array_equal(tensors["0/style"], result.scans[0].style)
    with safe_open(tmp_path / "out.safetensors", "numpy") as file:
        scans = json.loads(file.metadata()["scans"])
    assert set(scans[0]) == {"sha256", "modality"}
    for written in tmp_path.iterdir():
        assert b"smooth" not in written.read_bytes()


def test_names_are_kept_where_asked(tiny_model, smooth_ct, tmp_path):
    request = ExtractRequest([smooth_ct], model=tiny_model, device="cpu", keep_names=True)
    extract(request).save(tmp_path / "out.safetensors")
    assert b"smooth.nii.gz" in (tmp_path / "out.safetensors").read_bytes()
    assert b"smooth" not in (tmp_path / "out.json").read_bytes()


def test_voxel_order_changes_no_factor(tiny_model, smooth_ct, tmp_path):
    import nibabel as nib

    image = nib.load(smooth_ct)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("SPR"))
    nib.save(turned, tmp_path / "turned.nii.gz")
    one, other = extract(
        ExtractRequest([smooth_ct, tmp_path / "turned.nii.gz"], model=tiny_model, device="cpu")
    ).scans
    assert np.allclose(one.style, other.style, atol=1e-5)
    assert np.allclose(one.affine, other.affine, atol=1e-4)


def test_a_prototype_of_one_scan_is_its_style_and_of_two_lies_between(tiny_model, smooth_ct, noisy_ct):
    a, b, both = (
        make_prototype(PrototypeRequest(scans, model=tiny_model, device="cpu")).style
        for scans in ([smooth_ct], [noisy_ct], [smooth_ct, noisy_ct])
    )
    assert both.num_scans == 2
    middle = (a.statistics.mean + b.statistics.mean) / 2
    assert torch.allclose(both.statistics.mean, middle, atol=1e-6)
    for low, mean, high in zip(
        a.texture.deviations, both.texture.deviations, b.texture.deviations, strict=True
    ):
        assert min(low, high) <= mean <= max(low, high)
    assert both.spread > 0


def test_a_prototype_survives_its_file(tiny_model, smooth_ct, tmp_path):
    result = make_prototype(PrototypeRequest([smooth_ct], model=tiny_model, device="cpu"))
    result.save(tmp_path / "site.style")
    again = load_style(tmp_path / "site.style")
    assert torch.equal(again.statistics.mean, result.style.statistics.mean)
    assert again.texture == result.style.texture
    record = json.loads((tmp_path / "site.json").read_text())
    assert (record["kind"], record["synthetic"], record["modality"]) == ("prototype", False, "CT")


def test_a_prototype_has_one_modality(tiny_model, smooth_ct, mr):
    with pytest.raises(InputError, match="scan 2 is MR"):
        make_prototype(PrototypeRequest([smooth_ct, mr], model=tiny_model, device="cpu"))


def test_texture_is_averaged_over_the_scans_that_can_hold_it():
    fine, coarse = BandEnergies((4.0,) * 5, 0.7), BandEnergies((1.0,) * 5, 3.0)
    mean = mean_energies([fine, coarse])
    assert mean.pixel_mm == 0.7
    assert mean.deviations[0] == pytest.approx(4.0)  # the coarse scan cannot hold the finest band
    assert mean.deviations[-1] == pytest.approx(2.0)  # geometric mean of 4 and 1
    assert mean_energies([BandEnergies((), 1.0)]).deviations == ()


def test_noise_is_texture(grey_model, tmp_path):
    """Three times the noise in the scan, three times the energy of each band."""
    quiet, loud = (
        make_prototype(
            PrototypeRequest(
                [save_tissue(tmp_path / f"{noise_hu}.nii.gz", noise_hu, seed)],
                model=grey_model,
                device="cpu",
                choice=ScanChoice(modality="CT"),
            )
        ).style.texture
        for seed, noise_hu in enumerate((8, 24))
    )
    ratios = [b / a for a, b in zip(quiet.deviations, loud.deviations, strict=True)]
    assert ratios == pytest.approx([3.0] * len(ratios), rel=0.1)

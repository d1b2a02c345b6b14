"""The laws of a swap. They hold for any weights, so the weights here are random."""

import json
import threading
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny import save_tissue

from napari_meduet.errors import Cancelled, InputError
from napari_meduet.models.card import STYLES_FILE
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_model
from napari_meduet.pipelines import (
    PrototypeRequest,
    ScanChoice,
    SwapRequest,
    make_prototype,
    open_swap,
    read_volume,
    swap,
)

MODES = ["shift", "prototype", "adain", "token"]


def request(content, style, model, **options) -> SwapRequest:
    return SwapRequest(content, style, model=model, device="cpu", **options)


def test_a_swap_changes_the_scan_and_keeps_its_grid(tiny_model, smooth_ct, noisy_ct):
    before, result = read_volume(smooth_ct), swap(request(smooth_ct, noisy_ct, tiny_model))
    after = result.volume
    assert not np.array_equal(after.voxels, before.voxels)
    assert after.voxels.dtype == before.voxels.dtype
    assert np.array_equal(after.affine, before.affine)
    assert (after.unit, after.slope, after.intercept) == (before.unit, before.slope, before.intercept)


@pytest.mark.parametrize("mode", MODES)
def test_strength_zero_returns_the_input_bit_for_bit(tiny_model, smooth_ct, noisy_ct, mode):
    result = swap(request(smooth_ct, noisy_ct, tiny_model, mode=mode, strength=0.0))
    assert np.array_equal(result.volume.voxels, read_volume(smooth_ct).voxels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strength", [-0.5, 1.0, 1.5])
def test_a_scans_own_style_returns_it_bit_for_bit(tiny_model, noisy_ct, mode, strength):
    result = swap(request(noisy_ct, noisy_ct, tiny_model, mode=mode, strength=strength))
    assert np.array_equal(result.volume.voxels, read_volume(noisy_ct).voxels)


def test_a_prototype_of_the_scan_itself_returns_it_bit_for_bit(tiny_model, mr, tmp_path):
    make_prototype(PrototypeRequest([mr], model=tiny_model, device="cpu")).save(tmp_path / "own.style")
    result = swap(request(mr, tmp_path / "own.style", tiny_model))
    assert np.array_equal(result.volume.voxels, read_volume(mr).voxels)


@pytest.mark.parametrize("mode", MODES)
def test_voxels_outside_the_profile_are_untouched(tiny_model, smooth_ct, noisy_ct, mode):
    before = read_volume(smooth_ct)
    after = swap(request(smooth_ct, noisy_ct, tiny_model, mode=mode)).volume
    outside = (before.values() <= -1000) | (
        before.values() >= 1500
    )  # ct-full; the phantom has air and dense bone
    assert {"air": bool((before.values() <= -1000).any()), "bone": bool((before.values() >= 1500).any())} == {
        "air": True,
        "bone": True,
    }
    assert np.array_equal(after.voxels[outside], before.voxels[outside])
    assert (after.voxels[~outside] != before.voxels[~outside]).any()


def test_the_change_grows_with_strength(tiny_model, smooth_ct, noisy_ct):
    session = open_swap(
        request(smooth_ct, noisy_ct, tiny_model, texture=False, decode="residual", mode="adain")
    )
    content = session.measured.encoded.prepared.values
    sizes = [
        np.abs(session.render(strength).volume.values() - content).mean() for strength in (0, 0.25, 0.5, 1)
    ]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)


def test_a_session_renders_what_a_swap_returns(tiny_model, smooth_ct, noisy_ct):
    session = open_swap(request(smooth_ct, noisy_ct, tiny_model))
    session.render(0.3)
    again = session.render(0.7, texture=False)
    once = swap(request(smooth_ct, noisy_ct, tiny_model, strength=0.7, texture=False))
    assert np.array_equal(again.volume.voxels, once.volume.voxels)
    assert again.report == once.report


def test_texture_moves_noise_to_the_styles_both_ways(grey_model, tmp_path):
    ct = ScanChoice(modality="CT")
    quiet, loud = (
        save_tissue(tmp_path / f"{noise_hu}.nii.gz", noise_hu, seed) for seed, noise_hu in enumerate((8, 20))
    )
    louder, quieter = (
        swap(request(*pair, grey_model, content_choice=ct, style_choice=ct)).volume.values().std()
        for pair in ((quiet, loud), (loud, quiet))
    )
    assert louder == pytest.approx(20, rel=0.1)
    assert quieter == pytest.approx(8, rel=0.1)
    without = swap(request(quiet, loud, grey_model, texture=False, content_choice=ct, style_choice=ct)).volume
    assert np.array_equal(without.voxels, read_volume(quiet, modality="CT").voxels)


def test_full_decode_is_what_the_network_says(tiny_model, smooth_ct, noisy_ct):
    residual = swap(request(smooth_ct, noisy_ct, tiny_model, texture=False))
    full = swap(request(smooth_ct, noisy_ct, tiny_model, decode="full"))
    assert full.provenance["parameters"]["texture"] is False
    assert full.volume.values().std() < residual.volume.values().std()  # random weights decode a grey nothing


def test_the_report_sees_a_drift_under_labels(tiny_model, smooth_ct, noisy_ct):
    values = read_volume(smooth_ct).values()
    labels = np.where(values > 1500, 2, np.where(values > -200, 1, 0))
    result = swap(request(smooth_ct, noisy_ct, tiny_model, labels=labels))
    drifts = {drift.label: drift for drift in result.report.measurements.label_drift}
    assert set(drifts) == {1, 2}
    assert drifts[2].drift == 0.0  # outside the profile
    expected = result.volume.values()[labels == 1].mean() - values[labels == 1].mean()
    assert drifts[1].drift == pytest.approx(expected, abs=0.51)  # the file rounds to whole HU


def test_labels_come_from_a_file_on_the_same_grid(tiny_model, smooth_ct, noisy_ct, tmp_path):
    image = nib.load(smooth_ct)
    labels = (np.asarray(image.dataobj) > -200).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "labels.nii.gz")
    result = swap(request(smooth_ct, noisy_ct, tiny_model, labels=tmp_path / "labels.nii.gz"))
    assert [drift.label for drift in result.report.measurements.label_drift] == [1]

    elsewhere = image.affine + np.eye(4, k=3)
    nib.save(nib.Nifti1Image(labels, elsewhere), tmp_path / "elsewhere.nii.gz")
    with pytest.raises(InputError, match=r"elsewhere\.nii\.gz.*space"):
        open_swap(request(smooth_ct, noisy_ct, tiny_model, labels=tmp_path / "elsewhere.nii.gz"))
    with pytest.raises(InputError, match="measure"):
        open_swap(request(smooth_ct, noisy_ct, tiny_model, labels=labels[:-1].astype(int)))


def test_ct_and_mr_do_not_swap(tiny_model, smooth_ct, mr):
    with pytest.raises(InputError, match="content is CT and the style is MR"):
        open_swap(request(smooth_ct, mr, tiny_model))


def test_a_modality_that_was_guessed_wrongly_can_be_given(tiny_model, smooth_ct, mr):
    as_mr = ScanChoice(modality="MR")
    result = swap(request(smooth_ct, mr, tiny_model, content_choice=as_mr, style_choice=as_mr))
    assert result.volume.modality == "MR"


def test_a_style_of_another_model_is_refused(tiny_model, other_model, smooth_ct, noisy_ct, tmp_path):
    make_prototype(PrototypeRequest([noisy_ct], model=other_model, device="cpu")).save(tmp_path / "s.style")
    with pytest.raises(InputError, match="made by another model"):
        open_swap(request(smooth_ct, tmp_path / "s.style", tiny_model))


def test_token_mode_needs_one_grid(tiny_model, smooth_ct, noisy_ct, tmp_path):
    make_prototype(PrototypeRequest([noisy_ct], model=tiny_model, device="cpu")).save(tmp_path / "s.style")
    with pytest.raises(InputError, match="prototype"):
        open_swap(request(smooth_ct, tmp_path / "s.style", tiny_model, mode="token"))
    image = nib.load(noisy_ct)
    nib.save(image.slicer[:-4], tmp_path / "smaller.nii.gz")
    with pytest.raises(InputError, match="one grid"):
        open_swap(request(smooth_ct, tmp_path / "smaller.nii.gz", tiny_model, mode="token"))


def test_the_distance_to_known_styles_is_counted_in_their_spreads(tiny_model, smooth_ct, noisy_ct, tmp_path):
    model = load_model(tiny_model, "cpu")
    assert swap(request(smooth_ct, noisy_ct, tiny_model)).report.measurements.style_distance is None
    known = make_prototype(PrototypeRequest([smooth_ct], model=tiny_model, device="cpu")).style
    card = save_model(
        tmp_path / "knowing",
        model.card,
        model.tokenizer.state_dict(),
        model.meduet.state_dict(),
        {"site a": replace(known, spread=0.5)},
    )
    assert STYLES_FILE in card.files
    result = swap(request(smooth_ct, noisy_ct, tmp_path / "knowing"))
    other = make_prototype(PrototypeRequest([noisy_ct], model=tiny_model, device="cpu")).style
    expected = float((other.statistics.mean - known.statistics.mean).norm()) / 0.5
    assert result.report.measurements.style_distance == pytest.approx(expected, rel=1e-4)


def test_the_sidecar_tells_what_was_done_and_names_nobody(tiny_model, tmp_path, smooth_ct, noisy_ct):
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    image = nib.load(smooth_ct)
    image.header["descrip"] = b"DOE^JANE"
    image.header["db_name"] = b"DOE^JANE"
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"patient DOE^JANE"))
    nib.save(image, folder / "DOE^JANE_ct.nii.gz")
    result = swap(request(folder / "DOE^JANE_ct.nii.gz", noisy_ct, tiny_model, seed=5))
    result.save(tmp_path / "out.nii.gz")

    written = (tmp_path / "out.json").read_bytes()
    record = json.loads(written)
    assert (record["synthetic"], record["kind"], record["seed"]) == (True, "translated", 5)
    assert [source["role"] for source in record["Sources"]] == ["content", "style"]
    assert record["Sources"][0]["sha256"] == read_volume(folder / "DOE^JANE_ct.nii.gz").sha256
    model = load_model(tiny_model, "cpu")
    assert record["model"]["sha256"] == model.sha256
    assert record["model"]["files"] == {name: file.sha256 for name, file in model.card.files.items()}
    assert record["parameters"]["strength"] == 1.0
    assert record["safety"]["verdict"] == result.report.verdict
    assert record["versions"]["torch"] == torch.__version__
    volume = nib.load(tmp_path / "out.nii.gz")
    header = b"".join(extension.get_content() for extension in volume.header.extensions)
    for text in (
        written,
        header if isinstance(header, bytes) else header.encode(),
        volume.header.binaryblock,
    ):
        assert b"JANE" not in text
        assert str(tmp_path).encode() not in text


def test_a_result_remembers_that_a_model_made_it(tiny_model, smooth_ct, noisy_ct, tmp_path):
    swap(request(smooth_ct, noisy_ct, tiny_model)).save(tmp_path / "once.nii.gz")
    assert read_volume(tmp_path / "once.nii.gz").synthetic["kind"] == "translated"
    again = swap(request(tmp_path / "once.nii.gz", noisy_ct, tiny_model))
    assert any("made by a model" in warning for warning in again.provenance["warnings"])


def test_saving_replaces_nothing_unasked(tiny_model, smooth_ct, noisy_ct, tmp_path):
    result = swap(request(smooth_ct, noisy_ct, tiny_model, strength=0.0))
    result.save(tmp_path / "out.nii.gz")
    with pytest.raises(InputError, match="exists"):
        result.save(tmp_path / "out.nii.gz")
    result.save(tmp_path / "out.nii.gz", overwrite=True)


def test_progress_never_runs_back_and_ends(tiny_model, smooth_ct, noisy_ct):
    seen = []
    swap(request(smooth_ct, noisy_ct, tiny_model), lambda fraction, doing: seen.append(fraction))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)


def test_a_job_can_be_cancelled_wherever_it_reports(tiny_model, smooth_ct, noisy_ct):
    calls = []
    swap(request(smooth_ct, noisy_ct, tiny_model), lambda fraction, doing: calls.append(doing))
    for stop_at in np.linspace(0, len(calls) - 1, 12).astype(int):
        left = iter(range(stop_at))

        def stop(fraction, doing, left=left):
            if next(left, None) is None:
                raise Cancelled

        with pytest.raises(Cancelled):
            swap(request(smooth_ct, noisy_ct, tiny_model), stop)
    after = swap(request(smooth_ct, noisy_ct, tiny_model, strength=0.0))  # nothing of it stays behind
    assert np.array_equal(after.volume.voxels, read_volume(smooth_ct).voxels)


def test_cancelling_one_job_leaves_another_alone(tiny_model, smooth_ct, noisy_ct):
    """Two threads share the cached networks; only the one that was cancelled stops."""
    result, started = [], threading.Event()

    def patient(fraction, doing):
        started.set()

    worker = threading.Thread(
        target=lambda: result.append(swap(request(smooth_ct, noisy_ct, tiny_model), patient))
    )
    worker.start()
    started.wait()

    def impatient(fraction, doing):
        if fraction > 0.1:
            raise Cancelled

    for _ in range(3):
        with pytest.raises(Cancelled):
            swap(request(smooth_ct, noisy_ct, tiny_model), impatient)
    worker.join()
    assert len(result) == 1


def test_numbers_that_are_not_finite_never_come_out(tiny_model, smooth_ct, noisy_ct, tmp_path):
    model = load_model(tiny_model, "cpu")
    weights = {name: weight.clone() for name, weight in model.meduet.state_dict().items()}
    weights["decoder.prediction.bias"].fill_(torch.nan)
    save_model(tmp_path / "broken", model.card, model.tokenizer.state_dict(), weights)
    with pytest.raises(InputError, match="joining content and style"):
        swap(request(smooth_ct, noisy_ct, tmp_path / "broken"))


def test_a_scan_without_a_patient_is_refused(tiny_model, noisy_ct, tmp_path):
    air = np.random.default_rng(0).normal(-1000, 5, (30, 30, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(air, np.diag([1.5, 1.5, 3, 1])), tmp_path / "air.nii.gz")
    choice = ScanChoice(modality="CT")
    with pytest.raises(InputError, match="body"):
        swap(request(tmp_path / "air.nii.gz", noisy_ct, tiny_model, content_choice=choice))

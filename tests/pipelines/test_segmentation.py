"""Laws of a segmentation: no seams, one object in every voxel order, volumes that agree, telling refusals."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny import phantom, save_tiny_model, save_tiny_segmenter

from napari_meduet.core.sliding_windows import window_positions
from napari_meduet.errors import Cancelled, InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import copy_model, save_segmenter
from napari_meduet.models.segmenters import build_segmenter
from napari_meduet.pipelines import SegmentRequest, read_volume, segment
from napari_meduet.pipelines.common import memory as memory_module
from napari_meduet.pipelines.common import score_slabs as slabs_module
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.pipelines.common.score_slabs import head_bytes, score_slabs, without_air
from napari_meduet.pipelines.segmentation.session import blended_features, segment_prepared, segment_volume
from napari_meduet.volumes.volume import Volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny_segmenter(save_tiny_model(tmp_path_factory.mktemp("models") / "segmenting"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, "cpu")


def ct(voxels: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(voxels=voxels, affine=affine, modality="CT", unit="HU", sha256="0")


def oblique() -> np.ndarray:
    """A turned, anisotropic grid in LPS order."""
    angle = 0.3
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.1, -0.9, 2.3])
    affine[:3, 3] = 12, 30, -40
    return affine


def test_a_segmentation_lies_on_the_scans_own_grid_and_says_what_it_is(folder, smooth_ct, tmp_path):
    result = segment(SegmentRequest(smooth_ct, model=folder, device="cpu"))
    result.save(tmp_path / "labels.nii.gz")
    scan, written = nib.load(smooth_ct), nib.load(tmp_path / "labels.nii.gz")
    assert written.shape == scan.shape
    np.testing.assert_array_equal(written.affine, scan.affine)
    assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)
    assert written.get_data_dtype() == np.uint8
    assert written.header.get_intent()[0] == "label"
    assert b"napari-meduet" in written.header["descrip"].item()
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), result.labels)
    assert set(np.unique(result.labels)) <= {0, 3, 7}

    record = json.loads((tmp_path / "labels.json").read_text())
    assert (record["kind"], record["synthetic"]) == ("segmentation", False)
    assert record["labels"] == {"3": "organ", "7": "bone"}
    assert record["volumes_ml"] == {str(label): ml for label, ml in result.volumes_ml.items()}
    card = load_model(folder, "cpu").card
    assert record["model"]["sha256"] == card.sha256
    assert record["parameters"]["segmenter_sha256"] == card.files["segmenter.safetensors"].sha256
    again = read_volume(tmp_path / "labels.nii.gz")
    assert again.synthetic is not None
    assert again.synthetic["labels"] == record["labels"]


@pytest.mark.parametrize(
    ("affine", "voxel_mm3"),
    [
        (np.diag([1.1, 0.9, 2.3, 1]), 1.1 * 0.9 * 2.3),
        (oblique(), 1.1 * 0.9 * 2.3),
        (np.array([[1, 0, 0, 0], [0, 1, 0.05, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]]), 2.0),  # a tilted gantry
    ],
)
def test_volumes_are_voxels_times_their_size(model, affine, voxel_mm3):
    """The product of a sheared grid's spacings would be too large: its voxels are parallelepipeds."""
    scan = ct(phantom("CT", 0), affine)
    classes = model.card.segmenter.classes
    result = segment_volume(model, model.segmenter, classes, scan)
    for label, found in result.statistics.items():
        count = int((result.labels == label).sum())
        assert found.num_voxels == count
        assert found.volume_ml == pytest.approx(count * voxel_mm3 / 1000, rel=1e-9)
    assert sum(found.num_voxels for found in result.statistics.values()) > 0


@pytest.mark.parametrize("kind", ["decoder", "light"])
def test_slabs_have_no_seams(model, monkeypatch, kind):
    """The head on slabs gives the scores of the head on the whole, and only because it sees its halo."""
    scan = prepare_scan(model, ct(phantom("CT", 0), oblique()))
    torch.manual_seed(0)
    tokenizer = model.card.tokenizer.model_copy(
        update={"config": {**model.card.tokenizer.config, "decoder_blocks": 3}}
    )
    network = build_segmenter(replace(model.segmenter.config, head=kind), tokenizer)
    for weight in network.head.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # blocks begin as the identity, which looks nowhere
    x, y, z = (
        (length + low + high) // 4
        for length, low, high in zip(scan.units.shape, scan.before, scan.after, strict=True)
    )
    features = torch.randn(network.config.features, x, y, z)
    inner = tuple(slice(low, low + length) for low, length in zip(scan.before, scan.units.shape, strict=True))

    def in_slabs(budget: int) -> np.ndarray:
        monkeypatch.setattr(slabs_module, "SLAB_BUDGET_BYTES", budget)
        return np.concatenate(list(score_slabs(model, network, features, scan, null_progress)), axis=-1)

    with torch.inference_mode():
        expected = network.head(features[None])[0][:, *inner].numpy()
        tolerance = 1e-5 * np.abs(expected).max()
        for budget in (1, 8 * x * y * head_bytes(model, network), 2**33):
            np.testing.assert_allclose(in_slabs(budget), expected, atol=tolerance)
        blind = [stage._replace(reach=0) for stage in network.head.stages]
        monkeypatch.setattr(type(network.head), "stages", blind)
        assert np.abs(in_slabs(1) - expected).max() > 100 * tolerance


def test_windows_that_agree_are_blended_into_what_they_agree_on(model, monkeypatch):
    """Features that are a function of the place in the scan alone come back as that function."""
    latent = torch.randn(4, 24, 12, 16)
    truth = torch.randn(model.segmenter.config.features, 24, 12, 16)
    size = model.segmenter.config.latent_shape[1:]
    corners = iter(window_positions((24, 12, 16), size))

    def features(windows: torch.Tensor) -> torch.Tensor:
        cut = []
        for _ in windows:
            x, y, z = next(corners)
            cut.append(truth[:, x : x + size[0], y : y + size[1], z : z + size[2]])
        return torch.stack(cut)

    monkeypatch.setattr(model.segmenter, "features", features)
    blended = blended_features(model.segmenter, latent, null_progress)
    torch.testing.assert_close(blended, truth)
    assert next(corners, None) is None


def test_a_network_of_larger_windows_than_the_models_sees_a_continued_scan(model):
    config = replace(model.segmenter.config, grid=(4, 2, 2))
    network = build_segmenter(config, model.card.tokenizer)
    scan = ct(phantom("CT", 0, shape=(20, 44, 20)), np.diag([1.5, 1.5, 2.0, 1]))
    assert segment_prepared(model, network, [prepare_scan(model, scan)]).shape == scan.voxels.shape


def test_every_voxel_order_has_the_same_structures(model):
    """A scan whose axes run the other way, or in another order, is the same patient."""
    voxels, affine = phantom("CT", 1), np.diag([1.2, 1.3, 2.0, 1])
    classes = model.card.segmenter.classes
    expected = segment_volume(model, model.segmenter, classes, ct(voxels, affine))
    turned = np.flip(voxels.transpose(2, 0, 1), 1)
    reorder = np.zeros((4, 4))
    reorder[2, 0] = reorder[1, 2] = reorder[3, 3] = 1
    reorder[0, 1], reorder[0, 3] = -1, voxels.shape[0] - 1
    found = segment_volume(model, model.segmenter, classes, ct(turned, affine @ reorder))
    np.testing.assert_array_equal(found.labels, np.flip(expected.labels.transpose(2, 0, 1), 1))
    assert found.volumes_ml == pytest.approx(expected.volumes_ml)


def test_only_the_largest_part_of_a_structure_stays_where_that_is_asked(folder, smooth_ct):
    from scipy import ndimage

    asked = {"model": folder, "device": "cpu"}
    whole = segment(SegmentRequest(smooth_ct, **asked))
    clean = segment(SegmentRequest(smooth_ct, largest_parts=True, **asked))
    touching = np.ones((3, 3, 3))
    for label in whole.names:
        parts, _ = ndimage.label(whole.labels == label, structure=touching)
        sizes = np.bincount(parts.ravel())[1:]
        assert (clean.labels == label).sum() == (sizes.max() if sizes.size else 0)
        assert clean.statistics[label].num_voxels == (clean.labels == label).sum()
    assert clean.provenance["parameters"]["largest_parts"]


def test_what_cannot_be_segmented_is_refused_in_one_sentence(folder, tiny_model, smooth_ct, mr, tmp_path):
    with pytest.raises(InputError, match="has no segmenter"):
        segment(SegmentRequest(smooth_ct, model=tiny_model, device="cpu"))
    asked = {"model": folder, "device": "cpu"}
    thin = ct(phantom("CT", 0)[:, :, :4].copy(), np.diag([1.2, 1.2, 2.5, 1]))
    with pytest.raises(InputError, match=r"53 x 48 x 10 mm.*24 mm"):
        segment(SegmentRequest(thin, **asked))
    air = ct(np.full((40, 40, 30), -1000, np.int16), np.diag([1.5, 1.5, 1.5, 1]))
    with pytest.raises(InputError, match="no body"):
        segment(SegmentRequest(air, **asked))
    empty = ct(np.full((40, 40, 30), np.nan, np.float32), np.diag([1.5, 1.5, 1.5, 1]))
    with pytest.raises(InputError):
        segment(SegmentRequest(empty, **asked))


def test_a_modality_the_segmenter_does_not_know_is_refused(folder, mr, monkeypatch):
    model = load_model(folder, "cpu")
    card = model.card.model_copy(
        update={"segmenter": model.card.segmenter.model_copy(update={"modalities": ("CT",)})}
    )
    monkeypatch.setattr(
        "napari_meduet.pipelines.segmentation.session.load_model", lambda *_: replace(model, card=card)
    )
    with pytest.raises(InputError, match="knows CT scans; this scan is MR"):
        segment(SegmentRequest(mr, model=folder, device="cpu"))


def test_the_air_around_the_body_holds_no_structure_and_lung_at_the_border_may(model):
    """A network that sees an organ everywhere is believed in the body, and in lung that the scan cuts."""
    voxels = np.full((60, 60, 40), -1000, np.int16)
    voxels[12:48, :48] = 40
    voxels[20:40, :20] = -850  # lung, open to the border
    scan = prepare_scan(model, ct(voxels, np.diag([1.5, 1.5, 1.5, 1])))
    organ_everywhere = np.stack([np.zeros(scan.grid.shape, np.float32), np.ones(scan.grid.shape, np.float32)])
    slabs = (organ_everywhere[..., z : z + 7].copy() for z in range(0, scan.grid.shape[2], 7))
    found = scan.grid.labels_from_scores(without_air(slabs, scan.air), 2)
    assert (found[14:46, 2:46] == 1).all()
    assert (found[:10] == 0).all()
    assert (found[:, 50:] == 0).all()


def two_scans_at_once(folder: Path, target: Path) -> Path:
    """A model like the folder's, whose segmenter reads two sequences of a patient."""
    copy_model(folder, target)
    model = load_model(folder, "cpu")
    channels = 2 * model.tokenizer.channels
    network = build_segmenter(replace(model.segmenter.config, latent_channels=channels), model.card.tokenizer)
    classes = model.card.segmenter.classes
    save_segmenter(target, network.config, network.state_dict(), classes, ["MR"], {}, ["T1", "FLAIR"])
    return target


def test_two_sequences_of_a_patient_are_seen_together(folder, mr, tmp_path):
    """Both scans change the answer, and both are named as its sources."""
    together = two_scans_at_once(folder, tmp_path / "together")
    scan = read_volume(mr, modality="MR")
    other = replace(scan, voxels=np.flip(scan.voxels, 0).copy(), sha256="1" * 64)
    found = {
        name: segment(SegmentRequest(first, together=(second,), model=together, device="cpu"))
        for name, first, second in (("both", scan, other), ("twice", scan, scan), ("turned", other, scan))
    }
    assert found["both"].labels.shape == scan.voxels.shape
    assert [each["sha256"] for each in found["both"].provenance["Sources"]] == [scan.sha256, "1" * 64]
    assert (found["both"].labels != found["twice"].labels).any()
    assert (found["both"].labels != found["turned"].labels).any()


def test_too_few_sequences_are_refused_with_those_that_are_wanted(folder, mr, tmp_path):
    together = two_scans_at_once(folder, tmp_path / "together")
    with pytest.raises(InputError, match=r"reads 2 scans of a patient \(T1, FLAIR\) at once"):
        segment(SegmentRequest(mr, model=together, device="cpu"))


def test_too_many_sequences_are_refused(folder, mr):
    with pytest.raises(InputError, match="reads 1 scan of a patient at once, and 2 were given"):
        segment(SegmentRequest(mr, together=(mr,), model=folder, device="cpu"))


def test_sequences_on_two_grids_are_refused(folder, mr, tmp_path):
    scan = read_volume(mr, modality="MR")
    moved = replace(scan, affine=scan.affine + np.diag([0.5, 0, 0, 0]))
    together = two_scans_at_once(folder, tmp_path / "together")
    with pytest.raises(InputError, match="need one grid"):
        segment(SegmentRequest(scan, together=(moved,), model=together, device="cpu"))


@pytest.mark.parametrize("part", ["features", "head"])
def test_scores_that_are_not_finite_are_refused(model, part):
    network = build_segmenter(model.segmenter.config, model.card.tokenizer)
    weight = network.norm.bias if part == "features" else network.head.coefficients.bias
    torch.nn.init.constant_(weight, float("nan"))
    scan = prepare_scan(model, ct(phantom("CT", 0), oblique()))
    with pytest.raises(InputError, match="not finite"):
        segment_prepared(model, network, [scan])


def test_it_can_be_stopped_wherever_it_reports(folder, smooth_ct):
    """Progress grows from 0 to 1, and each report may be the last."""
    fractions, words = [], []
    request = SegmentRequest(smooth_ct, model=folder, device="cpu")
    segment(request, lambda fraction, doing: (fractions.append(fraction), words.append(doing)))
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    for stage in ("encoding", "looking at the scan", "deciding", "measuring volumes"):
        assert stage in words

        def stop(fraction: float, doing: str, stage: str = stage) -> None:
            if doing == stage:
                raise Cancelled

        with pytest.raises(Cancelled):
            segment(request, stop)


def test_a_scan_without_any_known_structure_says_so(model):
    network = build_segmenter(model.segmenter.config, model.card.tokenizer)
    with torch.no_grad():
        network.head.coefficients.weight.zero_()
        network.head.coefficients.bias.zero_()
        network.head.coefficients.bias[0] = 9.0
    result = segment_volume(model, network, model.card.segmenter.classes, ct(phantom("CT", 0), oblique()))
    assert not result.labels.any()
    assert any("None of the structures" in warning for warning in result.warnings)


def test_what_does_not_fit_into_memory_is_refused_with_numbers(folder, smooth_ct, monkeypatch):
    monkeypatch.setattr(memory_module, "free_bytes", lambda: 1000)
    with pytest.raises(InputError, match="GiB"):
        segment(SegmentRequest(smooth_ct, model=folder, device="cpu"))


def test_finding_the_largest_parts_counts_as_memory_too(folder, smooth_ct, monkeypatch):
    """Parts of a finely sliced scan take more than all that went before."""
    voxels = np.zeros((200, 200, 200), np.int16)
    scan = ct(voxels, np.diag([0.2, 0.2, 0.2, 1]))
    model = load_model(folder, "cpu")
    needed = memory_module.segmentation_bytes(model, model.segmenter, scan)
    assert needed < memory_module.CLEANING_BYTES * voxels.size
    monkeypatch.setattr(memory_module, "free_bytes", lambda: needed)
    memory_module.check_segmentation_memory(model, model.segmenter, scan)
    with pytest.raises(InputError, match="GiB"):
        memory_module.check_segmentation_memory(model, model.segmenter, scan, largest_parts=True)

"""Which class a scan belongs to: windows with body alone, alike however much air surrounds the patient."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import save_tiny_classifier, save_tiny_model

from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier
from napari_meduet.errors import Cancelled, InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_classifier
from napari_meduet.pipelines.classification import classify, latent_probabilities
from napari_meduet.pipelines.requests import ClassifyRequest
from napari_meduet.volumes.files import read_volume


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ScanClassifier(ClassifierConfig(grid=(2, 2, 2), width=24, depth=1, heads=2, num_classes=3)).eval()


def test_probabilities_of_all_classes_and_where_they_come_from(classifying_model, smooth_ct, tmp_path):
    result = classify(ClassifyRequest(smooth_ct, model=classifying_model, device="cpu"))
    assert list(result.probabilities) == ["benign", "malignant"]
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert result.probabilities[result.found] == max(result.probabilities.values())
    assert result.num_windows > 1
    result.save(tmp_path / "answer.json")
    record = json.loads((tmp_path / "answer.json").read_text())
    assert (record["class"], record["probabilities"]) == (result.found, result.probabilities)
    assert (record["kind"], record["synthetic"]) == ("classification", False)
    model = load_model(classifying_model, "cpu")
    assert record["parameters"]["classifier_sha256"] == model.card.files["classifier.safetensors"].sha256
    assert record["Sources"] == [{"role": "scan", "sha256": read_volume(smooth_ct).sha256}]
    assert "smooth" not in json.dumps(record)
    with pytest.raises(InputError, match="exists"):
        result.save(tmp_path / "answer.json")


@torch.inference_mode()
def test_the_scan_is_classified_by_the_mean_of_its_windows_by_body(network):
    latent, coverage = torch.randn(4, 8, 8, 12), torch.zeros(2, 2, 3)
    coverage[0, 0, 0], coverage[..., 1] = 1.0, 0.5  # in the first window 3, in the second 2 tokens' worth
    found, num_windows = latent_probabilities(network, latent, coverage)
    scores = [
        network(latent[None, ..., first : first + 8], coverage[None, ..., at : at + 2].flatten(1))[0]
        for first, at in ((0, 0), (4, 1))
    ]
    expected = (3 * scores[0] + 2 * scores[1]) / 5
    torch.testing.assert_close(found, expected.softmax(dim=0))
    assert num_windows == 2


@torch.inference_mode()
def test_windows_of_air_say_nothing(network):
    latent, coverage = torch.randn(4, 8, 8, 24), torch.zeros(2, 2, 6)
    coverage[..., :2] = 1.0
    found, num_windows = latent_probabilities(network, latent, coverage)
    changed = latent.clone()
    changed[..., 12:] = 7.0  # the second window reaches to 12
    assert torch.equal(found, latent_probabilities(network, changed, coverage)[0])
    assert num_windows == 2


@torch.inference_mode()
def test_a_scan_smaller_than_a_window_is_continued(network):
    found, num_windows = latent_probabilities(network, torch.randn(4, 4, 8, 8), torch.ones(1, 2, 2))
    assert num_windows == 1
    assert found.sum() == pytest.approx(1)


def test_a_scan_of_air_is_refused(network):
    with pytest.raises(InputError, match="no body"):
        latent_probabilities(network, torch.randn(4, 8, 8, 8), torch.zeros(2, 2, 2))


def test_a_volume_of_numpy_gives_what_its_file_gives(classifying_model, smooth_ct):
    request = ClassifyRequest(smooth_ct, model=classifying_model, device="cpu")
    from_memory = replace(request, scan=read_volume(smooth_ct))
    assert classify(request).probabilities == classify(from_memory).probabilities


@pytest.mark.parametrize("mistake", ["none", "modality", "several", "air", "device"])
def test_what_cannot_be_classified_is_one_sentence(classifying_model, smooth_ct, mr, tmp_path, mistake):
    scan, model, device, sentence = smooth_ct, save_tiny_model(tmp_path / "model"), "cpu", ""
    config = ClassifierConfig(grid=(2, 2, 2), width=24, depth=1, heads=2, num_classes=2)
    if mistake == "none":
        sentence = "has no classifier"
    elif mistake == "modality":
        save_classifier(model, config, ScanClassifier(config).state_dict(), ("a", "b"), ("CT",), {})
        scan, sentence = mr, "knows CT scans; this scan is MR"
    elif mistake == "several":
        config = replace(config, latent_channels=8)
        save_classifier(model, config, ScanClassifier(config).state_dict(), ("a", "b"), ("CT",), {})
        sentence = "reads 2 scans of a patient at once"
    elif mistake == "air":
        save_tiny_classifier(model)
        volume = read_volume(smooth_ct)
        scan = volume.with_values(np.full(volume.voxels.shape, -1000.0, np.float32))
        sentence = "no body"
    else:
        device, sentence = "tpu", "device"
    with pytest.raises(InputError, match=sentence):
        classify(ClassifyRequest(scan, model=model, device=device))


def test_a_body_outside_the_profile_is_told(classifying_model, smooth_ct):
    volume = read_volume(smooth_ct)
    bright = np.where(volume.values() > -500, 3000.0, -1000.0).astype(np.float32)  # the profile ends at 1500
    request = ClassifyRequest(volume.with_values(bright), model=classifying_model, device="cpu")
    result = classify(request)
    assert any("outside the intensity profile" in warning for warning in result.warnings)
    assert result.provenance["warnings"] == list(result.warnings)


def test_it_can_be_cancelled(classifying_model, smooth_ct):
    told = []

    def stop(fraction, doing):
        told.append((fraction, doing))
        if doing == "classifying":
            raise Cancelled

    with pytest.raises(Cancelled):
        classify(ClassifyRequest(smooth_ct, model=classifying_model, device="cpu"), stop)
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)

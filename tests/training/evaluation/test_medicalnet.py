"""MedicalNet's weights from the user's file: read under its names, others refused, nothing executed."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from meduet_training.evaluation.metrics.medicalnet import MedicalNet, _resnet50
from napari_meduet.errors import InputError

pytest.importorskip("monai")


def test_published_names_are_read_and_features_are_two_thousand(tmp_path):
    path = tmp_path / "resnet_50.safetensors"
    torch.manual_seed(0)
    network = _resnet50()
    tensors = {f"module.{name}": weight for name, weight in network.state_dict().items()}
    tensors["module.conv_seg.0.weight"] = torch.zeros(1)
    save_file({name: tensor for name, tensor in tensors.items() if "bn1" not in name}, path)
    with pytest.raises(InputError, match="does not hold the weights of MedicalNet"):
        MedicalNet(path)
    save_file(tensors, path)
    extractor = MedicalNet(path)
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    volume = torch.rand(32, 32, 32)
    features = extractor(volume)
    assert features.shape == (2048,)
    assert torch.isfinite(features).all()
    assert torch.allclose(extractor(3 * volume + 1), features, atol=1e-4)  # volumes are standardised


def test_layers_dilate_where_monais_would_stride():
    network = _resnet50()
    deep = torch.rand(1, 512, 4, 4, 4)
    with torch.no_grad():
        assert network.eval().layer4(network.layer3(deep)).shape[2:] == deep.shape[2:]


def test_a_file_with_code_is_not_opened(tmp_path):
    path = tmp_path / "resnet_50.pth"
    torch.save({"state_dict": print}, path)
    with pytest.raises(InputError, match="not opened"):
        MedicalNet(path)

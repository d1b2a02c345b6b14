"""A model is opened only if it is, to the last byte, what its card says."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import save_tiny_model

from napari_meduet.errors import InputError
from napari_meduet.models.card import MEDUET_FILE, TOKENIZER_FILE, read_card
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_model


@pytest.fixture
def folder(tmp_path):
    return save_tiny_model(tmp_path / "model")


def test_a_model_comes_back_as_it_was_saved(folder):
    model = load_model(folder, "cpu")
    saved = load_file(folder / MEDUET_FILE)
    assert all(torch.equal(weight, saved[name]) for name, weight in model.meduet.state_dict().items())
    assert model.sha256 == read_card(folder).sha256
    assert not model.meduet.training
    assert not any(weight.requires_grad for weight in model.meduet.parameters())


def test_half_precision_on_disk_is_single_precision_in_memory(folder, tmp_path):
    model = load_model(folder, "cpu")
    halves = [
        {name: weight.half() for name, weight in network.state_dict().items()}
        for network in (model.tokenizer, model.meduet)
    ]
    save_model(tmp_path / "half", model.card, *halves)
    again = load_model(tmp_path / "half", "cpu")
    assert {weight.dtype for weight in again.meduet.state_dict().values()} == {torch.float32}
    ratio = (tmp_path / "half" / MEDUET_FILE).stat().st_size / (folder / MEDUET_FILE).stat().st_size
    assert ratio < 0.6


def test_the_same_model_is_built_once(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load_model(folder, "cpu") is load_model(copy, "cpu")


@pytest.mark.parametrize("name", [TOKENIZER_FILE, MEDUET_FILE])
def test_a_flipped_bit_is_found_even_after_the_model_was_loaded(folder, name):
    load_model(folder, "cpu")
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*sha256"):
        load_model(folder, "cpu")


def test_a_cut_file_is_found_by_its_size(folder):
    content = (folder / MEDUET_FILE).read_bytes()
    (folder / MEDUET_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{MEDUET_FILE}.*bytes"):
        load_model(folder, "cpu")


def test_a_missing_file_is_named(folder):
    (folder / TOKENIZER_FILE).unlink()
    with pytest.raises(InputError, match=f"{TOKENIZER_FILE}.*missing"):
        load_model(folder, "cpu")


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("meduet", {"width": 48}, MEDUET_FILE),
        ("meduet", {"wings": 2}, "wings"),
        ("meduet", {"heads": 5}, "heads"),
        ("tokenizer", {"name": "lanczos"}, "lanczos"),
    ],
)
def test_weights_that_do_not_fit_the_card_are_refused(folder, part, change, named):
    card = json.loads((folder / "card.json").read_text())
    card[part] |= change
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=named):
        load_model(folder, "cpu")


def test_saving_never_replaces_a_model_by_accident(folder):
    model = load_model(folder, "cpu")
    with pytest.raises(InputError, match="exists"):
        save_model(folder, model.card, model.tokenizer.state_dict(), model.meduet.state_dict())


def test_a_device_that_is_not_there_is_refused(folder):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device that should be missing")
    with pytest.raises(InputError, match="mps"):
        load_model(folder, "mps")


def test_an_unknown_modality_is_refused(folder):
    card = json.loads((folder / "card.json").read_text())
    card |= {"modalities": ["CT"], "profiles": {"CT": card["profiles"]["CT"]}}
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="knows CT, not MR"):
        load_model(folder, "cpu").profile_for(torch.zeros(2).numpy(), "MR")

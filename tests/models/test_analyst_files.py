"""Segmenter and classifier join a model folder without touching what the model means."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import (
    CLASSES,
    save_tiny_classifier,
    save_tiny_generator,
    save_tiny_model,
    save_tiny_segmenter,
)

from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, CLASSIFIER_FILE, GENERATOR_FILE, SEGMENTER_FILE, read_card
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import copy_model, save_metrics, save_model, save_segmenter
from napari_meduet.models.segmenters import build_segmenter, init_classifier, init_segmenter
from napari_meduet.volumes import writing

SAVED = {SEGMENTER_FILE: save_tiny_segmenter, CLASSIFIER_FILE: save_tiny_classifier}
WHAT = {SEGMENTER_FILE: "segmenter", CLASSIFIER_FILE: "classifier"}


@pytest.fixture
def plain(tmp_path):
    return save_tiny_model(tmp_path / "model")


@pytest.fixture(params=sorted(SAVED))
def file(request):
    return request.param


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed_card(folder, change):
    card = json.loads((folder / CARD_FILE).read_text())
    change(card)
    (folder / CARD_FILE).write_text(json.dumps(card))


def test_a_model_without_them_has_none(plain):
    model = load_model(plain, "cpu")
    assert (model.segmenter, model.classifier) == (None, None)


def test_it_comes_back_in_half_precision_with_classes_and_training(plain, file):
    before = read_card(plain).sha256
    model = load_model(SAVED[file](plain, seed=3), "cpu")
    network, card = getattr(model, WHAT[file]), getattr(model.card, WHAT[file])
    assert network.config.num_classes == len(card.classes)
    assert card.training == {"seed": 3}
    assert not any(weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(weight, weight.half().float()) for weight in network.parameters())
    assert (plain / file).stat().st_size < 3 * sum(weight.numel() for weight in network.parameters())
    assert model.sha256 == before


def test_a_segmenter_says_the_same_as_before_it_was_saved(plain):
    model = load_model(save_tiny_segmenter(plain), "cpu")
    torch.manual_seed(0)
    original = build_segmenter(model.segmenter.config, model.card.tokenizer)
    latent = torch.randn(1, 4, 8, 8, 8)
    torch.testing.assert_close(model.segmenter(latent), original(latent), atol=5e-3, rtol=0)
    assert model.card.segmenter.classes == CLASSES


def test_a_second_takes_the_place_of_the_first(plain, file):
    SAVED[file](plain, seed=0)
    first = load_model(plain, "cpu")
    second = load_model(SAVED[file](plain, seed=1), "cpu")
    assert second.card.files[file] != first.card.files[file]
    assert getattr(second.card, WHAT[file]).training == {"seed": 1}


def test_a_flipped_bit_is_found(plain, file):
    SAVED[file](plain)
    content = bytearray((plain / file).read_bytes())
    content[-1] ^= 1
    (plain / file).write_bytes(content)
    with pytest.raises(InputError, match=f"{file}.*sha256"):
        load_model(plain, "cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"width": 12}, "not the weights that the card describes"),
        ({"wings": 2}, "wings"),
        ({"latent_channels": 6}, "latent_channels is 6, but the tokenizer writes 4 for each scan"),
        ({"num_classes": 5}, "must be the number of classes"),
    ],
)
def test_weights_that_do_not_fit_the_card_are_refused(plain, file, change, sentence):
    SAVED[file](plain)
    changed_card(plain, lambda card: card[WHAT[file]]["config"].update(change))
    with pytest.raises(InputError, match=sentence) as error:
        load_model(plain, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda card, what, file: card.update({what: None}), "needs both its entry here and"),
        (lambda card, what, file: card["files"].pop(file), "needs both its entry here and"),
        (lambda card, what, file: card[what].update(modalities=["PET"]), "modalities"),
        (
            lambda card, what, file: card[what].update(classes=card[what]["classes"][:1] * 3),
            "each class needs another",
        ),
        (
            lambda card, what, file: card.update(modalities=["CT"], profiles={"CT": card["profiles"]["CT"]}),
            "must be modalities of the model",
        ),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(plain, file, change, sentence):
    SAVED[file](plain)
    changed_card(plain, lambda card: change(card, WHAT[file], file))
    with pytest.raises(InputError, match=sentence):
        read_card(plain)


@pytest.mark.parametrize("mistake", ["classes", "background", "weights", "latents", "modality"])
def test_a_segmenter_that_does_not_fit_is_refused_and_nothing_changes(plain, mistake):
    config = UNETRConfig(grid=(2, 2, 2), width=24, depth=4, heads=2, features=8, num_classes=3)
    weights = build_segmenter(config, read_card(plain).tokenizer).state_dict()
    classes, modalities, before = CLASSES, ("CT",), contents_of(plain)
    sentence = {
        "classes": "must be the number of classes",
        "background": "the first class must be the background",
        "weights": "its weights are not those of its sizes",
        "latents": "the tokenizer writes 4",
        "modality": "'CT' or 'MR'",
    }[mistake]
    if mistake == "classes":
        classes = CLASSES[:2]
    elif mistake == "background":
        classes = CLASSES[::-1]
    elif mistake == "weights":
        config = replace(config, features=16)
    elif mistake == "latents":
        config = replace(config, latent_channels=5)
    else:
        modalities = ("PET",)
    with pytest.raises(InputError, match=rf"model: this segmenter does not fit the model: .*{sentence}"):
        save_segmenter(plain, config, weights, classes, modalities, {})
    assert contents_of(plain) == before


def test_a_disk_that_refuses_leaves_what_was_there(plain, file, monkeypatch):
    SAVED[file](plain)
    before, replaced = contents_of(plain), writing.os.replace

    def refuses(source, destination):
        if str(destination).endswith(CARD_FILE):
            raise OSError(28, "No space left on device")
        return replaced(source, destination)

    monkeypatch.setattr(writing.os, "replace", refuses)
    with pytest.raises(InputError, match="cannot be written"):
        SAVED[file](plain, seed=1)
    monkeypatch.undo()
    assert contents_of(plain) == before


def test_figures_are_kept_with_what_they_are_of(plain, file):
    with pytest.raises(InputError, match=f"no {WHAT[file]}, so its metrics"):
        save_metrics(plain, {}, of=WHAT[file])
    SAVED[file](plain)
    save_metrics(plain, {"of the model": 1})
    card = save_metrics(plain, {"Dice": 0.5}, of=WHAT[file])
    assert getattr(card, WHAT[file]).metrics == {"Dice": 0.5}
    assert card.metrics == {"of the model": 1}
    assert read_card(plain) == card


def test_a_copy_is_the_same_model_under_its_own_name(plain, tmp_path):
    save_tiny_classifier(save_tiny_segmenter(save_tiny_generator(plain)))
    card = copy_model(plain, tmp_path / "copy", without=(SEGMENTER_FILE, GENERATOR_FILE), name="taught")
    copy = load_model(tmp_path / "copy", "cpu")
    assert (copy.segmenter, copy.generator, copy.control) == (None, None, None)
    assert copy.classifier is not None
    assert (card.name, card.generator_training) == ("taught", {})
    assert copy.sha256 == read_card(plain).sha256
    assert not (tmp_path / "copy" / SEGMENTER_FILE).exists()
    assert load_model(save_tiny_segmenter(tmp_path / "copy"), "cpu").segmenter is not None


def test_a_whole_copy_is_a_whole_copy(plain, tmp_path):
    save_tiny_segmenter(plain)
    copy_model(plain, tmp_path / "copy")
    assert contents_of(tmp_path / "copy") == contents_of(plain)


def test_a_copy_never_replaces_a_model_nor_repeats_damage(plain, tmp_path):
    other = save_tiny_model(tmp_path / "other", seed=1)
    before = contents_of(other)
    with pytest.raises(InputError, match="exists"):
        copy_model(plain, other)
    assert contents_of(other) == before
    (plain / "meduet.safetensors").write_bytes(b"0")
    with pytest.raises(InputError, match="bytes instead of"):
        copy_model(plain, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_model_saved_from_the_card_of_another_has_neither(plain, tmp_path):
    model = load_model(save_tiny_classifier(save_tiny_segmenter(plain)), "cpu")
    card = save_model(tmp_path / "new", model.card, model.tokenizer.state_dict(), model.meduet.state_dict())
    assert (card.segmenter, card.classifier) == (None, None)
    assert load_model(tmp_path / "new", "cpu").segmenter is None


@pytest.mark.parametrize("start", ["meduet", "scratch"])
def test_a_segmenter_begins_with_the_encoder_or_without_and_with_the_decoder_either_way(plain, start):
    model = load_model(plain, "cpu")
    config = UNETRConfig(grid=(3, 2, 2), width=24, depth=4, heads=2, features=8, num_classes=3)
    network = build_segmenter(config, model.card.tokenizer)
    init_segmenter(network, model, start)
    began = network.encoder.state_dict()
    given = model.meduet.encoder.state_dict()
    assert all(torch.equal(began[name], weight) for name, weight in given.items()) == (start == "meduet")
    decoder = model.tokenizer.decoder.state_dict()
    assert all(
        torch.equal(network.head.decoder.state_dict()[name], weight) for name, weight in decoder.items()
    )


def test_two_copies_of_a_scan_embed_as_the_scan_did(plain):
    """A patch embedding inflated for two modalities (M-06)."""
    model = load_model(plain, "cpu")
    config = UNETRConfig(
        latent_channels=8, grid=(2, 2, 2), width=24, depth=4, heads=2, features=8, num_classes=3
    )
    network = build_segmenter(config, model.card.tokenizer)
    init_segmenter(network, model, "meduet")
    latent = torch.randn(1, 4, 8, 8, 8)
    twice = network.encoder.embed(torch.cat([latent, latent], dim=1))
    torch.testing.assert_close(twice, model.meduet.encoder.embed(latent))


def test_an_encoder_of_another_width_is_no_beginning(plain):
    model = load_model(save_tiny_classifier(plain), "cpu")
    config = replace(model.classifier.config, width=36)
    with pytest.raises(ValueError, match="differ in width"):
        init_classifier(type(model.classifier)(config), model, "meduet")

"""A ControlNet joins the generator of a model folder, and stays only with that one."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import save_tiny_generator, save_tiny_model

from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, CONTROL_FILE, MaskClass, read_card
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_control, save_generator
from napari_meduet.volumes import writing

CLASSES = (MaskClass(label=0, name="background"), MaskClass(label=7, name="liver"))


@pytest.fixture
def folder(tmp_path):
    return save_tiny_generator(save_tiny_model(tmp_path / "model"))


def random_control(folder, num_classes=2, seed=0):
    control = ControlNet(load_model(folder, "cpu").generator, num_classes)
    torch.manual_seed(seed)
    for parameter in control.parameters():
        torch.nn.init.normal_(parameter)
    return control


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_control_comes_back_in_half_precision_and_the_identity_stays(folder):
    before, control = read_card(folder).sha256, random_control(folder)
    card = save_control(folder, control, CLASSES, {"steps_taken": 3})
    model = load_model(folder, "cpu")
    assert read_card(folder) == card
    assert (card.sha256, model.sha256) == (before, before)
    assert card.control.labels == (0, 7)
    assert card.control.training == {"steps_taken": 3}
    written = control.state_dict()
    for name, weight in model.control.state_dict().items():
        assert torch.equal(weight, written[name].half().float())
    assert not any(weight.requires_grad for weight in model.control.parameters())


def test_a_flipped_bit_of_the_control_is_found(folder):
    save_control(folder, random_control(folder), CLASSES, {})
    content = bytearray((folder / CONTROL_FILE).read_bytes())
    content[-1] ^= 1
    (folder / CONTROL_FILE).write_bytes(content)
    with pytest.raises(InputError, match=f"{CONTROL_FILE}.*sha256"):
        load_model(folder, "cpu")


def test_a_new_generator_takes_the_control_of_the_old_one_away(folder):
    save_control(folder, random_control(folder), CLASSES, {})
    generator = load_model(folder, "cpu").generator
    save_generator(folder, generator.config, generator.state_dict(), {"seed": 1})
    model = load_model(folder, "cpu")
    assert (model.control, model.card.control) == (None, None)
    assert not (folder / CONTROL_FILE).exists()


@pytest.mark.parametrize("mistake", ["classes", "generator", "none"])
def test_a_control_that_does_not_fit_is_refused_and_nothing_changes(folder, tmp_path, mistake):
    control, sentence = random_control(folder), "another generator, or other classes"
    if mistake == "classes":
        control = random_control(folder, num_classes=3)
    elif mistake == "generator":
        config = load_model(folder, "cpu").generator.config
        control = ControlNet(Generator(replace(config, width=24)), 2)
    else:
        folder, sentence = save_tiny_model(tmp_path / "plain"), "no generator"
    before = contents_of(folder)
    with pytest.raises(InputError, match=sentence):
        save_control(folder, control, CLASSES, {})
    assert contents_of(folder) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda card: card["control"].update(generator_sha256="0" * 64), "another generator"),
        (lambda card: card.update(control=None), "needs both its classes here and control.safetensors"),
        (lambda card: card["files"].pop(CONTROL_FILE), "needs both its classes here and control.safetensors"),
        (lambda card: card["control"]["classes"][1].update(label=0), "each class needs another label"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(folder, change, sentence):
    save_control(folder, random_control(folder), CLASSES, {})
    card = json.loads((folder / CARD_FILE).read_text())
    change(card)
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(InputError, match=sentence):
        read_card(folder)


def test_a_disk_that_refuses_leaves_the_control_that_was_there(folder, monkeypatch):
    save_control(folder, random_control(folder), CLASSES, {})
    before, replaced = contents_of(folder), writing.os.replace

    def refuses(source, destination):
        if str(destination).endswith(CARD_FILE):
            raise OSError(28, "No space left on device")
        return replaced(source, destination)

    monkeypatch.setattr(writing.os, "replace", refuses)
    with pytest.raises(InputError, match="cannot be written"):
        save_control(folder, random_control(folder, seed=1), CLASSES, {})
    monkeypatch.undo()
    assert contents_of(folder) == before

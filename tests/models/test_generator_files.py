"""A generator joins a model folder without touching what the model means."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import MEDUET, save_tiny_model

from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, GENERATOR_FILE, read_card
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_generator, save_model
from napari_meduet.volumes import writing

CONFIG = GeneratorConfig(
    grid=(2, 2, 2),
    width=24,
    depth=1,
    heads=2,
    content_width=MEDUET["content_width"],
    style_width=MEDUET["style_width"],
    prediction="data",
)


@pytest.fixture
def folder(tmp_path):
    return save_tiny_model(tmp_path / "model")


def random_weights(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    return {
        name: torch.randn_like(weight) if weight.is_floating_point() else weight
        for name, weight in Generator(config).state_dict().items()
    }


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_without_a_generator_has_none(folder):
    assert load_model(folder, "cpu").generator is None


def test_a_generator_comes_back_in_half_precision_with_its_training(folder):
    weights = random_weights()
    card = save_generator(folder, CONFIG, weights, {"preset": "tiny", "seed": 3})
    model = load_model(folder, "cpu")
    assert model.generator is not None
    assert model.generator.config == CONFIG
    for name, weight in model.generator.state_dict().items():
        assert torch.equal(weight, weights[name].half().float())
    assert not any(weight.requires_grad for weight in model.generator.parameters())
    assert read_card(folder) == card
    assert card.generator_training == {"preset": "tiny", "seed": 3}


def test_the_identity_of_the_model_stays(folder):
    before = read_card(folder).sha256
    assert save_generator(folder, CONFIG, random_weights(), {}).sha256 == before
    assert load_model(folder, "cpu").sha256 == before


def test_another_generator_takes_the_place_of_the_first(folder):
    save_generator(folder, CONFIG, random_weights(0), {"seed": 0})
    assert load_model(folder, "cpu").generator is not None
    deeper = replace(CONFIG, depth=2)
    save_generator(folder, deeper, random_weights(1, deeper), {"seed": 1})
    model = load_model(folder, "cpu")
    assert model.generator is not None
    assert model.generator.config.depth == 2
    assert model.card.generator_training == {"seed": 1}


def test_a_flipped_bit_of_the_generator_is_found(folder):
    save_generator(folder, CONFIG, random_weights(), {})
    content = bytearray((folder / GENERATOR_FILE).read_bytes())
    content[-1] ^= 1
    (folder / GENERATOR_FILE).write_bytes(content)
    with pytest.raises(InputError, match=f"{GENERATOR_FILE}.*sha256"):
        load_model(folder, "cpu")


def test_a_generator_of_other_factors_is_refused_and_nothing_changes(folder):
    before = contents_of(folder)
    stranger = replace(CONFIG, style_width=6)
    with pytest.raises(InputError, match="style_width is 6, but the model's 12"):
        save_generator(folder, stranger, random_weights(0, stranger), {})
    assert contents_of(folder) == before


def test_a_generator_of_other_factors_is_not_loaded(folder):
    save_generator(folder, CONFIG, random_weights(), {})
    card = json.loads((folder / CARD_FILE).read_text())
    card["generator"]["content_width"] = 12
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(InputError, match="generator: content_width is 12, but the model's 24"):
        load_model(folder, "cpu")


@pytest.mark.parametrize("lacking", ["generator", "files"])
def test_sizes_and_weights_of_a_generator_come_together(folder, lacking):
    save_generator(folder, CONFIG, random_weights(), {})
    card = json.loads((folder / CARD_FILE).read_text())
    if lacking == "generator":
        card["generator"] = None
    else:
        del card["files"][GENERATOR_FILE]
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(InputError, match="generator"):
        read_card(folder)


def test_a_disk_that_refuses_leaves_the_generator_that_was_there(folder, monkeypatch):
    save_generator(folder, CONFIG, random_weights(0), {"seed": 0})
    before = contents_of(folder)

    def refuses(source, destination):
        if str(destination).endswith(CARD_FILE):
            raise OSError(28, "No space left on device")
        return replaced(source, destination)

    replaced = writing.os.replace
    monkeypatch.setattr(writing.os, "replace", refuses)
    with pytest.raises(InputError, match="cannot be written"):
        save_generator(folder, CONFIG, random_weights(1), {"seed": 1})
    monkeypatch.undo()
    assert contents_of(folder) == before


def test_a_model_saved_from_the_card_of_another_has_no_generator(folder, tmp_path):
    save_generator(folder, CONFIG, random_weights(), {"seed": 0})
    model = load_model(folder, "cpu")
    card = save_model(tmp_path / "copy", model.card, model.tokenizer.state_dict(), model.meduet.state_dict())
    assert card.generator is None
    assert card.generator_training == {}
    assert load_model(tmp_path / "copy", "cpu").generator is None


def test_a_copied_folder_is_the_same_model(folder, tmp_path):
    save_generator(folder, CONFIG, random_weights(), {})
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load_model(folder, "cpu") is load_model(copy, "cpu")

"""A card says all that its weights mean, and nothing that nobody declared."""

import json

import pytest
from pydantic import ValidationError
from tiny import save_tiny_model

from napari_meduet.errors import InputError
from napari_meduet.models.card import ModelCard, read_card


@pytest.fixture
def folder(tmp_path):
    return save_tiny_model(tmp_path / "model")


def edited(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))
    return folder


def test_a_card_survives_writing_and_reading(folder):
    card = read_card(folder)
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"licence_server": "x"}, "licence_server"),
        ({"working_spacing_mm": -1}, "working_spacing_mm"),
        ({"modalities": ["CT"]}, "profiles"),
        ({"profiles": {"CT": {"name": "ct-full"}, "MR": {"name": "mr"}}}, "profiles"),
        ({"files": {"../escape.safetensors": {"sha256": "0" * 64, "num_bytes": 1}}}, "files"),
        ({"files": {}}, "tokenizer.safetensors"),
        (
            {"tokenizer": {"name": "wavelet", "config": {}, "latent_mean": [0.0], "latent_std": [0.0]}},
            "latent_std",
        ),
    ],
)
def test_a_card_that_cannot_be_right_is_refused_by_field(folder, changes, named):
    with pytest.raises(InputError, match=named):
        read_card(edited(folder, **changes))


def test_a_folder_without_a_card_is_no_model(tmp_path):
    with pytest.raises(InputError, match=r"card\.json"):
        read_card(tmp_path)


def test_prose_and_figures_do_not_change_the_identity(folder):
    before = read_card(folder).sha256
    assert read_card(edited(folder, description="Better words.", metrics={"psnr_db": 33.0})).sha256 == before


@pytest.mark.parametrize(
    "changes",
    [
        {"working_spacing_mm": 1.4},
        {"profiles": {"CT": {"name": "x", "knots": [[-900, 0], [900, 1]]}, "MR": {"name": "mr"}}},
    ],
)
def test_what_decides_a_number_changes_the_identity(folder, changes):
    before = read_card(folder).sha256
    assert read_card(edited(folder, **changes)).sha256 != before


def test_a_card_cannot_be_changed_in_place(folder):
    with pytest.raises(ValidationError):
        read_card(folder).name = "another"

"""A request that cannot work cannot be made."""

import numpy as np
import pytest

from napari_meduet.errors import InputError
from napari_meduet.pipelines.requests import (
    ExtractRequest,
    PrototypeRequest,
    RoundtripRequest,
    ScanChoice,
    SwapRequest,
    SynthesisRequest,
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "blend"),
        ("decode", "half"),
        ("device", "tpu"),
        ("strength", 1.6),
        ("strength", -0.6),
        ("strength", float("nan")),
        ("labels", np.zeros((2, 2), int)),
        ("labels", np.zeros((2, 2, 2))),
    ],
)
def test_a_swap_names_the_field_that_cannot_be(field, value):
    with pytest.raises(InputError, match=field):
        SwapRequest("a.nii.gz", "b.nii.gz", **{field: value})


def test_other_requests_name_their_fields_too():
    with pytest.raises(InputError, match="scans"):
        ExtractRequest([])
    with pytest.raises(InputError, match="scans"):
        PrototypeRequest([])
    with pytest.raises(InputError, match="through"):
        RoundtripRequest("a.nii.gz", through="hoop")
    with pytest.raises(InputError, match="modality"):
        ScanChoice(modality="PET")
    with pytest.raises(InputError, match="volume_index"):
        ScanChoice(volume_index=-1)


def test_the_ends_of_the_range_of_strengths_belong_to_it():
    for strength in (-0.5, 0.0, 1.0, 1.5):
        assert SwapRequest("a", "b", strength=strength).strength == strength


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("anatomy", "other"),
        ("guidance", "free"),
        ("sampler", "rk4"),
        ("content_weight", -1.0),
        ("style_weight", float("nan")),
        ("guidance_interval", (0.8, 0.2)),
        ("noise", 0.0),
        ("noise", 1.1),
        ("steps", 0),
        ("count", 0),
        ("seed", -1),
        ("size", (96, 96, 100)),
        ("size", (96, 96, 0)),
        ("mask", np.zeros((2, 2, 2))),
        ("mask", "without-a-content.nii.gz"),
    ],
)
def test_a_synthesis_names_the_field_that_cannot_be(field, value):
    with pytest.raises(InputError, match=field):
        SynthesisRequest(**{field: value})


def test_each_sampler_has_its_number_of_steps():
    assert SynthesisRequest(sampler="em").num_steps == 250
    assert SynthesisRequest(sampler="em", steps=9).num_steps == 9

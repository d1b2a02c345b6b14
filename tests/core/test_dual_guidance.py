import inspect

import pytest
import torch
from small_generator import conditions

from meduet_training.commands import evaluate
from napari_meduet import cli
from napari_meduet.core.options import GUIDANCE_WEIGHT
from napari_meduet.core.synthesis.guidance import (
    compositional_guidance,
    content_push,
    dual_guidance,
    nested_guidance,
    rescaled,
    style_push,
)
from napari_meduet.core.synthesis.guided import Guidance, combined_conditions
from napari_meduet.pipelines.requests import SynthesisRequest

BOTH, STYLE_ONLY, CONTENT_ONLY, NEITHER = (torch.tensor([[float(n)]]) for n in (10, 7, 4, 2))
PREDICTED = {"both": BOTH, "style_only": STYLE_ONLY, "content_only": CONTENT_ONLY, "neither": NEITHER}
FORMS = ("paper", "compositional", "nested")
FACTORS = ("content", "style")


def test_pushes_by_hand():
    assert content_push(BOTH, STYLE_ONLY) == 3
    assert style_push(BOTH, CONTENT_ONLY) == 6


def test_the_form_of_the_paper_by_hand():
    assert dual_guidance(BOTH, STYLE_ONLY, CONTENT_ONLY, 3.0, 2.0) == 10 + 3 * 3 + 2 * 6


def test_the_compositional_form_by_hand():
    found = compositional_guidance(BOTH, STYLE_ONLY, CONTENT_ONLY, NEITHER, 3.0, 2.0)
    assert found == 10 + 3 * (4 - 2) + 2 * (7 - 2)


def test_the_nested_form_by_hand():
    assert nested_guidance(BOTH, CONTENT_ONLY, NEITHER, 3.0, 2.0) == 10 + 3 * (4 - 2) + 2 * (10 - 4)


def test_rescaling_by_hand():
    guided, both = torch.tensor([[0.0, 8.0]]), torch.tensor([[1.0, 3.0]])  # stds 4 and 1 times sqrt 2
    assert torch.allclose(rescaled(guided, both, 1.0), torch.tensor([[0.0, 2.0]]))
    assert torch.allclose(rescaled(guided, both, 0.5), torch.tensor([[0.0, 5.0]]))
    assert torch.equal(rescaled(guided, both, 0.0), guided)


@pytest.mark.parametrize("form", FORMS)
def test_without_weights_the_conditional_model_is_alone_in_every_form(form):
    guidance = Guidance(form=form, content_weight=0.0, style_weight=0.0, rescale=0.5)
    assert guidance.combinations == ("both",)
    both = torch.randn(1, 4, 2, 2, 2)
    assert guidance.guided({"both": both}) is both
    others = {name: torch.randn(1, 4, 2, 2, 2) for name in ("style_only", "content_only", "neither")}
    if form == "paper":
        found = dual_guidance(both, others["style_only"], others["content_only"], 0.0, 0.0)
    elif form == "compositional":
        found = compositional_guidance(both, **others, content_weight=0.0, style_weight=0.0)
    else:
        found = nested_guidance(both, others["content_only"], others["neither"], 0.0, 0.0)
    assert torch.equal(found, both)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", [(3.0, 2.0), (3.0, 0.0), (0.0, 2.0)])
def test_what_a_weight_of_zero_would_multiply_is_not_asked_for_and_not_missed(form, weights):
    guidance = Guidance(form=form, content_weight=weights[0], style_weight=weights[1])
    asked = {name: PREDICTED[name] for name in guidance.combinations}
    assert guidance.guided(asked) == guidance.guided(PREDICTED)
    assert len(asked) < 4 or form == "compositional"


def test_the_default_guidance_is_one_value_everywhere():
    of_command, of_evaluation = (
        inspect.signature(function).parameters for function in (cli.synthesize, evaluate.synthesis)
    )
    defaults = [
        *(getattr(each(), f"{factor}_weight") for each in (Guidance, SynthesisRequest) for factor in FACTORS),
        *(of_command[f"{factor}_weight"].default for factor in FACTORS),
        *(of_evaluation[name].default for name in ("wc", "ws")),
    ]
    assert defaults == [GUIDANCE_WEIGHT] * 8


def test_all_latent_channels_are_guided():
    both, style_only, content_only = torch.randn(3, 1, 4, 2, 2, 2)
    moved = dual_guidance(both, style_only, content_only, 3.0, 3.0) - both
    expected = 3 * (both - style_only) + 3 * (both - content_only)
    assert moved.abs().amin(dim=(2, 3, 4)).gt(0).all()
    assert torch.allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("combination", "drops"),
    [
        ("both", (False, False)),
        ("style_only", (True, False)),
        ("content_only", (False, True)),
        ("neither", (True, True)),
    ],
)
def test_each_combination_drops_its_factors_and_content_of_places_with_content(combination, drops):
    given = conditions()
    combined = combined_conditions(given, combination)
    assert (bool(combined.drops_content.all()), bool(combined.drops_style.all())) == drops
    assert bool(combined.spatial_content.any()) is not drops[0]
    assert not given.drops_content.any()


@pytest.mark.parametrize(
    "impossible",
    [
        {"content_weight": -1.0},
        {"style_weight": float("nan")},
        {"style_weight": float("inf")},
        {"interval": (0.5, 0.2)},
        {"interval": (-0.1, 1.0)},
        {"rescale": 1.5},
    ],
)
def test_impossible_guidance_cannot_be_asked_for(impossible):
    with pytest.raises(ValueError, match="got"):
        Guidance(**impossible)

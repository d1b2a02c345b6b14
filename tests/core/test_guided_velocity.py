from dataclasses import replace

import pytest
import torch
from small_generator import conditions, latent, minute_generator

from napari_meduet.core.synthesis.guidance import dual_guidance
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity, combined_conditions
from napari_meduet.core.synthesis.interpolant import velocity_of_data
from napari_meduet.core.synthesis.samplers import heun, time_grid

FORMS = ("paper", "compositional", "nested")
TIMES = (0.9, 0.4)


def plain(generator, x, time, given):
    with torch.no_grad():
        return generator(x, torch.full((len(x),), time), given)


@pytest.mark.parametrize("prediction", ["velocity", "noise", "data"])
def test_guidance_is_the_formula_of_three_plain_predictions(prediction):
    generator, given, x = minute_generator(prediction=prediction), conditions(), latent()
    names = ("both", "style_only", "content_only")
    each = [plain(generator, x, 0.4, combined_conditions(given, name)) for name in names]
    expected = dual_guidance(*each, 3.0, 2.0)
    if prediction == "data":
        expected = velocity_of_data(x, expected, torch.full((2,), 0.4))
    guided = GuidedVelocity(generator, given, Guidance(content_weight=3.0, style_weight=2.0), TIMES)
    assert torch.allclose(guided(x, 0.4), expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spatial", [True, False])
def test_combinations_in_one_batch_are_those_computed_one_by_one(form, spatial):
    generator, given, x = minute_generator(refinement_channels=4), conditions(spatial=spatial), latent()
    one, each = (
        GuidedVelocity(generator, given, Guidance(form=form), TIMES, batched=batched)
        for batched in (True, False)
    )
    for time in TIMES:
        assert torch.allclose(one(x, time), each(x, time), atol=1e-5)
    assert one.num_evaluations == each.num_evaluations == (6 if form != "compositional" else 8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_without_weights_it_is_the_conditional_model_in_every_form(form, prediction):
    generator, given, x = minute_generator(prediction=prediction), conditions(), latent()
    guidance = Guidance(form=form, content_weight=0.0, style_weight=0.0)
    guided = GuidedVelocity(generator, given, guidance, TIMES)
    expected = plain(generator, x, 0.9, given)
    if prediction == "data":
        expected = velocity_of_data(x, expected, torch.full((2,), 0.9))
    assert torch.allclose(guided(x, 0.9), expected, atol=1e-6)
    assert guided.num_evaluations == 1


def test_every_latent_channel_is_guided():
    generator, given, x = minute_generator(), conditions(), latent()
    guided = GuidedVelocity(generator, given, Guidance(), TIMES)(x, 0.4)
    assert (guided - plain(generator, x, 0.4, given)).abs().amin(dim=(0, 2, 3, 4)).gt(0).all()


def test_outside_its_interval_guidance_rests_and_costs_nothing():
    generator, given, x = minute_generator(), conditions(), latent()
    guided = GuidedVelocity(generator, given, Guidance(interval=(0.1, 0.5)), TIMES)
    assert torch.allclose(guided(x, 0.9), plain(generator, x, 0.9, given), atol=1e-6)
    assert guided.num_evaluations == 1
    assert not torch.allclose(guided(x, 0.4), plain(generator, x, 0.4, given), atol=1e-3)
    assert guided.num_evaluations == 4


def test_a_style_that_is_not_given_cannot_guide():
    """If the style is the null, both evaluations are equal, so only the content has an effect."""
    generator, x = minute_generator(), latent()
    given = replace(conditions(), drops_style=torch.ones(2, dtype=torch.bool))
    found = [
        GuidedVelocity(generator, given, Guidance(style_weight=weight), TIMES)(x, 0.4)
        for weight in (0.0, 9.0)
    ]
    assert torch.allclose(*found, atol=1e-5)


def test_rows_do_not_see_each_other():
    generator, given, x = minute_generator(), conditions(), latent()
    together = GuidedVelocity(generator, given, Guidance(), TIMES)(x, 0.4)
    row = {name: None if value is None else value[1:] for name, value in vars(given).items()}
    alone = GuidedVelocity(generator, type(given)(**row), Guidance(), TIMES)(x[1:], 0.4)
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_rescaled_guidance_has_the_spread_of_the_conditional_prediction():
    generator, given, x = minute_generator(), conditions(), latent()
    spread = plain(generator, x, 0.4, given).std(dim=(1, 2, 3, 4))
    guided = GuidedVelocity(generator, given, Guidance(rescale=1.0), TIMES)(x, 0.4)
    assert torch.allclose(guided.std(dim=(1, 2, 3, 4)), spread, rtol=1e-4)
    free = GuidedVelocity(generator, given, Guidance(), TIMES)(x, 0.4)
    assert not torch.allclose(free.std(dim=(1, 2, 3, 4)), spread, rtol=1e-2)


def test_places_can_be_exchanged_without_computing_the_rest_again():
    generator, given, x = minute_generator(), conditions(), latent()
    other = replace(given, spatial_content=conditions(seed=5).spatial_content)
    first = GuidedVelocity(generator, given, Guidance(), TIMES)
    moved = first.with_spatial_conditions(other)
    assert torch.equal(moved(x, 0.4), GuidedVelocity(generator, other, Guidance(), TIMES)(x, 0.4))
    assert torch.equal(first(x, 0.4), GuidedVelocity(generator, given, Guidance(), TIMES)(x, 0.4))
    assert (first.num_evaluations, moved.num_evaluations) == (3, 3)


def test_half_precision_weights_take_and_return_single():
    generator, given, x = minute_generator().bfloat16(), conditions(), latent()
    rounded = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in vars(given).items()
        if value is not None
    }
    guided = GuidedVelocity(generator, type(given)(**rounded), Guidance(), TIMES)(x, 0.4)
    exact = GuidedVelocity(minute_generator(), given, Guidance(), TIMES)(x, 0.4)
    assert guided.dtype == torch.float32
    assert (guided - exact).std() < 0.1 * exact.std()


def test_a_sampler_walks_it_to_the_end_with_the_evaluations_counted():
    generator, given = minute_generator(prediction="data"), conditions()
    times = time_grid(4)
    guided = GuidedVelocity(generator, given, Guidance(), times)
    *_, walked = heun(guided, latent(), times)
    assert walked.x.isfinite().all()
    assert guided.num_evaluations == 3 * 7

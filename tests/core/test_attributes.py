from dataclasses import replace

import pytest
import torch
from small_generator import awake, latent, minute_config

from napari_meduet.core.synthesis.attributes import (
    SPACING_WIDTH,
    attribute_conditions,
    spacing_embedding,
    with_attributes,
)
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity

CHEST, ABDOMEN = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
THIN, THICK = torch.tensor([[0.7, 0.7, 1.0]]), torch.tensor([[0.7, 0.7, 5.0]])


def generator() -> Generator:
    torch.manual_seed(0)
    return awake(Generator(with_attributes(minute_config(), num_regions=3)))


def test_regions_stand_for_content_and_spacing_for_style():
    config = with_attributes(minute_config(), num_regions=3)
    assert (config.content_width, config.style_width) == (3, SPACING_WIDTH)
    assert not config.spatial_content
    given = attribute_conditions(CHEST, THIN)
    assert torch.equal(given.content, CHEST)
    assert not given.drops_content.any()


def test_a_millimetre_is_no_doubling():
    embedded = spacing_embedding(torch.ones(1, 3))
    assert embedded.tolist() == [[1.0] * 12 + [0.0] * 12]


def test_the_slowest_wave_tells_any_two_spacings_apart():
    spacings = torch.logspace(-1, 1, 30)
    embedded = spacing_embedding(spacings.unsqueeze(-1).expand(-1, 3))
    distances = torch.cdist(embedded, embedded) + 9 * torch.eye(30)
    assert distances.min() > 0.1


def test_region_and_spacing_both_matter():
    network, x, time = generator(), latent(1), torch.tensor([0.4])
    asked = [(CHEST, THIN), (ABDOMEN, THIN), (CHEST, THICK)]
    first, *others = (network(x, time, attribute_conditions(*each)) for each in asked)
    for other in others:
        assert not torch.allclose(first, other, atol=1e-3)


def test_guidance_is_that_of_the_factors():
    network, x = generator(), latent(1)
    given = attribute_conditions(CHEST, THIN)
    guided = GuidedVelocity(network, given, Guidance(), (0.4,))(x, 0.4)
    everything = replace(given, drops_content=torch.tensor([True]), drops_style=torch.tensor([True]))
    assert not torch.allclose(guided, network(x, torch.tensor([0.4]), everything), atol=1e-3)


def test_a_generator_that_knows_no_region_is_refused():
    with pytest.raises(ValueError, match="at least 1; got 0"):
        with_attributes(minute_config(), num_regions=0)

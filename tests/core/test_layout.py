"""Help for short trainings: whitened factors, and the layout prior for spatial content."""

from dataclasses import replace

import pytest
import torch

from napari_meduet.core.synthesis.conditioning import FactorCondition, whitening
from napari_meduet.core.synthesis.generator import Conditions, Generator, GeneratorConfig

SMALL = GeneratorConfig(
    latent_channels=2,
    patch_size=2,
    grid=(2, 2, 2),
    width=12,
    depth=2,
    heads=2,
    content_width=6,
    style_width=4,
    layout_rank=3,
)


def conditions(places: torch.Tensor | None) -> Conditions:
    none = torch.zeros(2, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    return Conditions(
        content=torch.randn(2, 6, generator=generator),
        style=torch.randn(2, 4, generator=generator),
        drops_content=none,
        drops_style=none,
        spatial_content=places,
    )


def filled(config: GeneratorConfig) -> Generator:
    """Return a generator in which no layer is zero."""
    torch.manual_seed(0)
    generator = Generator(config)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return generator


def test_whitened_factors_have_unit_variance_along_every_direction():
    generator = torch.Generator().manual_seed(0)
    spreads = torch.tensor([50.0, 5.0, 1.0])
    factors = torch.randn(4000, 3, generator=generator) * spreads + torch.tensor([100.0, -3.0, 0.0])
    centre, white = whitening(factors)
    whitened = (factors - centre) @ white
    assert torch.allclose(whitened.mean(dim=0), torch.zeros(3), atol=1e-3)
    assert torch.allclose(torch.cov(whitened.T), torch.eye(3), atol=1e-2)


def test_directions_without_variance_are_not_made_loud():
    factors = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)) * torch.tensor([[10.0, 0.0]])
    _, white = whitening(factors)
    assert white[1, 1] == pytest.approx(1 / (0.01 * float(factors[:, 0].std(correction=0))), rel=1e-4)


def test_fewer_factors_than_directions_can_be_whitened():
    _, white = whitening(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    assert white.isfinite().all()
    assert torch.allclose(white, white.T, atol=1e-4)


def test_a_condition_that_was_not_fitted_is_the_papers():
    condition, given = FactorCondition(6), torch.zeros(5, dtype=torch.bool)
    factors = torch.randn(5, 6)
    before = condition(factors, given)
    assert torch.allclose(before.norm(dim=1), torch.full((5,), 6**0.5), rtol=1e-4)
    condition.fit(10 + torch.randn(50, 6))
    assert not torch.allclose(condition(factors, given), before)


def test_a_layout_stands_only_where_no_content_of_places_is_given():
    generator = filled(SMALL)
    places = torch.randn(2, 8, 6)
    places[0, 3:] = 0  # beyond the scan
    places[1] = 0  # no scan at all
    tokens = generator.spatial_tokens(conditions(places))
    guessed = generator.spatial_tokens(conditions(None))
    assert tokens is not None
    assert guessed is not None
    assert torch.equal(tokens[0, 3:], guessed[0, 3:])
    assert torch.equal(tokens[1], guessed[1])
    assert generator.spatial_content is not None
    assert torch.equal(tokens[0, :3], generator.spatial_content(places)[0, :3])


def test_a_new_layout_guesses_nothing():
    tokens = Generator(SMALL).spatial_tokens(conditions(None))
    assert tokens is not None
    assert not tokens.any()


def test_without_a_layout_no_places_are_guessed():
    assert Generator(replace(SMALL, layout_rank=0)).spatial_tokens(conditions(None)) is None

import pytest
import torch
from jaxtyping import TypeCheckError
from small_generator import conditions, latent, minute_config, minute_generator

from napari_meduet.core.positions import interpolated_positions, sincos_positions
from napari_meduet.core.synthesis.generator import (
    Generator,
    GeneratorConfig,
    modulated,
    modulated_block,
)
from napari_meduet.core.time_embedding import time_embedding
from napari_meduet.core.transformer import Block

TIME = torch.tensor([0.3, 0.9])


def test_modulation_by_hand():
    tokens = torch.tensor([[[1.0, 2.0]]])
    found = modulated(tokens, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, -1.0]]))
    assert found.tolist() == [[[2.5, 1.0]]]


def block_and_tokens() -> tuple[Block, torch.Tensor]:
    torch.manual_seed(0)
    return Block(width=12, num_heads=2, mlp_ratio=2), torch.randn(1, 3, 12)


def test_a_block_whose_gates_are_closed_changes_nothing():
    block, tokens = block_and_tokens()
    modulation = torch.randn(1, 6, 12)
    modulation[:, [2, 5]] = 0
    assert torch.equal(modulated_block(block, tokens, modulation), tokens)


def test_a_block_with_open_gates_and_nothing_else_is_the_encoders():
    block, tokens = block_and_tokens()
    modulation = torch.zeros(1, 6, 12)
    modulation[:, [2, 5]] = 1
    assert torch.allclose(modulated_block(block, tokens, modulation), block(tokens), atol=1e-6)


def test_attention_and_mlp_have_their_own_gates():
    block, tokens = block_and_tokens()
    modulation = torch.zeros(1, 6, 12)
    modulation[:, 2] = 1
    attended = tokens + block.attention(block.attention_norm(tokens))
    assert torch.allclose(modulated_block(block, tokens, modulation), attended, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"refinement_channels": 4}, {"prediction": "noise"}])
def test_a_new_generator_returns_exactly_zero(changes):
    generator = Generator(minute_config(**changes))
    assert not generator(latent(), TIME, conditions()).any()


def test_what_is_computed_before_the_steps_is_what_forward_computes():
    generator, given, x = minute_generator(refinement_channels=4), conditions(), latent()
    modulation = generator.time_modulation(TIME) + generator.condition_modulation(given)
    ahead = generator.predict(x, modulation, generator.spatial_tokens(given))
    assert torch.equal(ahead, generator(x, TIME, given))
    one_time = generator.time_modulation(TIME[:1]) + generator.condition_modulation(given)
    again = generator(x, TIME[:1].expand(2), given)
    assert torch.allclose(generator.predict(x, one_time, generator.spatial_tokens(given)), again, atol=1e-6)


def test_the_modulation_is_time_content_and_style_added():
    """Eq. 18: a change of style changes the modulation equally for every time and content."""
    generator, a, b = minute_generator(), conditions(seed=0), conditions(seed=1)
    swapped = conditions(seed=1)
    swapped = type(a)(**{**vars(a), "style": swapped.style})
    other = type(a)(**{**vars(b), "style": a.style})
    moved_a = generator.condition_modulation(swapped) - generator.condition_modulation(a)
    moved_b = generator.condition_modulation(b) - generator.condition_modulation(other)
    assert torch.allclose(moved_a, moved_b, atol=1e-5)


def test_time_content_style_and_places_all_matter():
    generator, given, x = minute_generator(), conditions(), latent()
    before = generator(x, TIME, given)
    for name in ("content", "style", "spatial_content"):
        changed = type(given)(**{**vars(given), name: vars(given)[name] + 1})
        assert not torch.allclose(generator(x, TIME, changed), before)
    assert not torch.allclose(generator(x, TIME + 0.05, given), before)


def test_what_is_dropped_no_longer_matters():
    generator, x = minute_generator(), latent()
    given = conditions(spatial=False)
    without = type(given)(**{**vars(given), "drops_style": torch.tensor([True, True])})
    other = type(given)(**{**vars(without), "style": without.style + 1})
    assert torch.equal(generator(x, TIME, without), generator(x, TIME, other))


def test_no_content_of_places_is_content_of_zero():
    generator, given, x = minute_generator(), conditions(), latent()
    none = type(given)(**{**vars(given), "spatial_content": None})
    zero = type(given)(**{**vars(given), "spatial_content": torch.zeros_like(given.spatial_content)})
    assert torch.equal(generator(x, TIME, none), generator(x, TIME, zero))


def test_recomputing_blocks_gives_the_same_gradient():
    gradients = []
    for recomputes in (False, True):
        generator = minute_generator()
        generator.transformer.recomputes = recomputes
        generator(latent(), TIME, conditions()).square().mean().backward()
        gradients.append(generator.transformer.blocks[0].mlp[0].weight.grad)
    assert torch.equal(*gradients)


def test_the_time_embedding_tells_steps_of_a_thousandth_apart():
    embedded = time_embedding(torch.tensor([0.0, 0.001, 1.0]))
    assert embedded[0].tolist() == [1.0] * 128 + [0.0] * 128
    assert (embedded[1] - embedded[0]).abs().max() > 0.8  # the highest frequency is 1 radian per step


def test_the_papers_sizes():
    """SiT-B/4: 2048 tokens, 12 blocks of 7.1 M parameters, and a modulation of 75 vectors."""
    config = GeneratorConfig.base()
    assert (config.num_tokens, config.latent_shape) == (2048, (4, 64, 64, 32))
    with torch.device("meta"):
        generator = Generator(config)
        numbers = (6 * 12 + 2 + 1) * 768
        given = torch.zeros(2, dtype=torch.bool)
        asked = type(conditions())(
            content=torch.empty(2, 768),
            style=torch.empty(2, 192),
            drops_content=given,
            drops_style=given,
            spatial_content=torch.empty(2, 2048, 768),
        )
        answer = generator(torch.empty(2, *config.latent_shape), torch.empty(2), asked)
    assert answer.shape == (2, 4, 64, 64, 32)
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    assert count(generator.transformer) == 12 * 7_087_872 + 2 * 768  # ViT-B's own
    assert count(generator.from_time) == 769 * numbers
    assert count(generator.from_content) == 768 * numbers
    assert count(generator.from_style) == 192 * numbers
    outside = 257 * 768 + 769 * 256 + (257 + 769) * 768 + (768 + 1) + (192 + 1) + 768**2 + 768 * 256
    assert count(generator) == count(generator.transformer) + (769 + 768 + 192) * numbers + outside


def test_positions_are_computed_for_the_grid_or_stretched_from_the_encoders():
    own = Generator(minute_config(grid=(4, 2, 2)))
    assert torch.equal(own.positions, sincos_positions((4, 2, 2), 12))
    stretched = Generator(minute_config(grid=(4, 2, 2), positions_of=(2, 2, 2)))
    assert torch.equal(stretched.positions, interpolated_positions((2, 2, 2), (4, 2, 2), 12))


def test_positions_stretched_over_their_own_grid_are_themselves():
    found = interpolated_positions((3, 2, 2), (3, 2, 2), 12)
    assert torch.allclose(found, sincos_positions((3, 2, 2), 12))


def test_stretched_positions_by_hand():
    """An axis of 2 positions interpolated to 4 has positions at 0, 1/4, 3/4 and 1 of the way."""
    first, last = sincos_positions((2, 1, 1), 6)
    expected = torch.stack([torch.lerp(first, last, share) for share in (0.0, 0.25, 0.75, 1.0)])
    assert torch.allclose(interpolated_positions((2, 1, 1), (4, 1, 1), 6), expected)


def test_shapes_are_checked():
    with pytest.raises(TypeCheckError):
        minute_generator()(latent(), torch.zeros(3), conditions())


@pytest.mark.parametrize(
    "impossible", [{"heads": 5}, {"width": 16}, {"grid": (0, 2, 2)}, {"refinement_channels": 7}]
)
def test_a_generator_that_cannot_work_cannot_be_configured(impossible):
    with pytest.raises(ValueError, match=r"got|split|must be"):
        minute_config(**impossible)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_meduet.core.demixing import draw_mask
from napari_meduet.core.meduet import Disentangle, MeDUET, MeDUETConfig
from napari_meduet.core.patches import patchify
from napari_meduet.core.transformer import Attention, Block

TINY = MeDUETConfig.tiny(depth=1, decoder_depth=1, num_domains=3)


@pytest.fixture(scope="module")
def tiny() -> MeDUET:
    torch.manual_seed(0)
    return MeDUET(TINY).eval()


@torch.no_grad()
def test_the_papers_network_at_the_papers_sizes():
    network = MeDUET(MeDUETConfig.base())
    content, style = network.encode(torch.randn(1, 4, 24, 24, 24))
    assert content.shape == (1, 216, 768)
    assert style.shape == (1, 216, 192)
    assert network.decoder.fuse(content, style).shape == (1, 216, 384)
    assert network.decode(content, style).shape == (1, 4, 24, 24, 24)


@pytest.mark.parametrize("preset", [MeDUETConfig.base, MeDUETConfig.small, MeDUETConfig.tiny])
def test_every_preset_keeps_the_papers_proportions(preset):
    config = preset()
    assert config.content_width == config.width == 4 * config.style_width
    assert config.latent_shape == (4, 24, 24, 24)
    assert config.num_tokens == 216


@pytest.mark.parametrize(
    "changes", [{"heads": 7}, {"width": 100, "heads": 10}, {"decoder_heads": 5}, {"num_domains": 0}]
)
def test_a_network_that_cannot_work_cannot_be_configured(changes):
    with pytest.raises(ValueError, match=r"heads|multiple of 6|at least 1"):
        MeDUETConfig.base(**changes)


def test_a_latent_of_another_size_is_refused(tiny):
    with pytest.raises(ValueError, match=r"\(4, 24, 24, 28\).*windows"):
        tiny.encode(torch.zeros(1, 4, 24, 24, 28))


@torch.no_grad()
def test_attention_by_hand():
    # Queries and keys of 0 attend equally to both tokens, so each becomes the mean of the values, 2 and 4.
    attention = Attention(width=2, num_heads=1)
    for parameter in attention.parameters():
        parameter.zero_()
    attention.qkv.weight[4:] = torch.eye(2)
    attention.out.weight.copy_(torch.eye(2))
    attended = attention(torch.tensor([[[2.0, 0.0], [4.0, 0.0]]]))
    assert torch.allclose(attended, torch.tensor([[[3.0, 0.0], [3.0, 0.0]]]))


@torch.no_grad()
def test_a_block_is_what_its_equations_say():
    block, tokens = Block(width=12, num_heads=3, mlp_ratio=4), 1e-3 * torch.randn(2, 5, 12)
    normed = (tokens - tokens.mean(-1, keepdim=True)) / (
        tokens.var(-1, correction=0, keepdim=True) + 1e-6
    ).sqrt()
    attended = tokens + block.attention(normed)
    normed = (attended - attended.mean(-1, keepdim=True)) / (
        attended.var(-1, correction=0, keepdim=True) + 1e-6
    ).sqrt()
    first, _, second = block.mlp
    expected = attended + second(torch.nn.functional.gelu(first(normed)))
    assert first.out_features == 4 * 12
    assert torch.allclose(block(tokens), expected, atol=1e-5)


@torch.no_grad()
def test_tokens_know_where_they_are(tiny):
    # The input is constant, but all tokens and all patches are different.
    tokens = tiny.encoder(torch.ones(1, 4, 24, 24, 24))[0]
    assert torch.pdist(tokens).min() > 1e-3
    patches = patchify(tiny.decoder(torch.ones(1, 216, TINY.decoder_width)), 4)[0]
    assert torch.pdist(patches).min() > 1e-3


@torch.no_grad()
def test_rows_of_a_batch_do_not_meet(tiny):
    latent = torch.randn(3, 4, 24, 24, 24)
    together, alone = tiny.encode(latent), tiny.encode(latent[1:2])
    for factor, own in zip(together, alone, strict=True):
        assert torch.allclose(factor[1:2], own, atol=1e-5)


@torch.no_grad()
def test_c03_only_content_and_style_reach_the_decoder(tiny):
    # The encoder returns exactly one token for each patch, and the decoder adds a constant only.
    assert tiny.encoder(torch.randn(2, 4, 24, 24, 24)).shape == (2, 216, 192)
    content, style = tiny.encode(torch.randn(1, 4, 24, 24, 24))
    alone = tiny.decode(content, style)
    other_content, other_style = tiny.encode(torch.randn(1, 4, 24, 24, 24))
    beside = tiny.decode(torch.cat([content, other_content]), torch.cat([style, other_style]))
    assert torch.allclose(alone, beside[:1], atol=1e-5)


@torch.no_grad()
def test_c03_the_constant_is_learned_and_takes_part(tiny):
    factors = tiny.encode(torch.randn(1, 4, 24, 24, 24))
    before = tiny.decode(*factors)
    assert tiny.decoder.constant.requires_grad
    tiny.decoder.constant.add_(1)
    after = tiny.decode(*factors)
    tiny.decoder.constant.sub_(1)
    assert not torch.allclose(before, after)


@torch.no_grad()
def test_hidden_tokens_leave_no_trace_in_what_is_decoded(tiny):
    fused = torch.randn(1, 216, 192)
    visible = draw_mask(216, 0.5, torch.Generator().manual_seed(0)).unsqueeze(0)
    altered = torch.where(visible.unsqueeze(-1) > 0, fused, torch.randn_like(fused))
    assert torch.equal(tiny.decoder(fused, visible), tiny.decoder(altered, visible))
    assert torch.equal(tiny.decoder(fused, torch.ones(1, 216)), tiny.decoder(fused))


def reach_of(token: int, mask: torch.Tensor | None, layer: Disentangle) -> set[int]:
    """Return the tokens whose style changes with one token."""
    tokens = torch.randn(1, 216, TINY.width)
    altered = tokens.clone()
    altered[0, token] += 1
    change = (layer(altered, mask)[1] - layer(tokens, mask)[1]).abs().amax(dim=(0, 2))
    return set(torch.nonzero(change > 1e-6).flatten().tolist())


def neighbours_of(token: int) -> set[int]:
    """Return the token and all its neighbours on the 6^3 grid."""
    x, y, z = token // 36, token // 6 % 6, token % 6
    near = [[n for n in (axis - 1, axis, axis + 1) if 0 <= n < 6] for axis in (x, y, z)]
    return {i * 36 + j * 6 + k for i in near[0] for j in near[1] for k in near[2]}


@settings(max_examples=25)
@given(st.integers(0, 215))
@torch.no_grad()
def test_c26_style_is_smoothed_over_neighbours_in_space(token):
    # Token 5 ends a row and token 6 begins the next: neighbours in raster order, five tokens apart in space.
    assert reach_of(token, None, Disentangle(TINY)) == neighbours_of(token)


@settings(max_examples=25)
@given(st.integers(0, 215), st.integers(0, 100))
@torch.no_grad()
def test_c26_a_token_of_a_mixture_is_smoothed_only_with_its_own_volume(token, seed):
    torch.manual_seed(seed)
    mask = draw_mask(216, 0.5, torch.Generator().manual_seed(0)).unsqueeze(0)
    own = set(torch.nonzero(mask[0] == mask[0, token]).flatten().tolist())
    assert reach_of(token, mask, Disentangle(TINY)) == neighbours_of(token) & own


@torch.no_grad()
def test_c26_a_mask_that_mixes_nothing_changes_nothing():
    layer, tokens = Disentangle(TINY), torch.randn(2, 216, TINY.width)
    for mask in (torch.zeros(2, 216), torch.ones(2, 216)):
        assert torch.allclose(layer(tokens, mask)[1], layer(tokens)[1], atol=1e-6)


def test_content_is_punished_for_its_domain_and_style_rewarded(tiny):
    content, style = torch.randn(1, 192, requires_grad=True), torch.randn(1, 48, requires_grad=True)
    for logits, factor, sign in zip(
        tiny.domain_logits(content, style), (content, style), (-1, 1), strict=True
    ):
        (gradient,) = torch.autograd.grad(logits[0, 0], factor)
        step = 1e-3 * gradient / gradient.norm()
        classifier = tiny.content_domain if factor is content else tiny.style_domain
        change = classifier(factor + step)[0, 0] - classifier(factor)[0, 0]
        assert sign * change > 0

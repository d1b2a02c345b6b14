"""Heads that repeat a tokenizer's decoder: its shape, its reach, its weights between other ends."""

from dataclasses import asdict

import pytest
import torch

from napari_meduet.core.analysis.heads import SCORE_GAIN, LightHead
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.tokenizers.maisi import MaisiConfig
from napari_meduet.tokenizers.registry import TOKENIZERS, build_head, build_tokenizer, start_head
from napari_meduet.tokenizers.wavelet import WaveletConfig, haar_matrix

SMALL = {
    "wavelet": WaveletConfig(width=8, encoder_blocks=1, decoder_blocks=2),
    "maisi": MaisiConfig(num_channels=(8, 8, 16), num_res_blocks=(1, 1, 1), norm_num_groups=4),
}
FEATURES, CLASSES = 12, 3
ENDS = {  # of the decoder: the wavelet tokenizer's has them elsewhere
    "wavelet": set(),
    "maisi": {"blocks.0.conv.conv.weight", "blocks.7.conv.conv.weight", "blocks.7.conv.conv.bias"},
}


def unetr(**changes):
    return UNETRConfig(num_classes=CLASSES, features=FEATURES, depth=4, **changes)


@pytest.fixture(params=sorted(TOKENIZERS))
def name(request):
    return request.param


@pytest.fixture
def head(name):
    torch.manual_seed(0)
    return build_head(unetr(), name, asdict(SMALL[name])).eval()


def test_every_tokenizer_has_a_head():
    assert all(row.head for row in TOKENIZERS.values())
    assert set(TOKENIZERS) == set(SMALL)


@torch.inference_mode()
def test_each_latent_voxel_becomes_voxels_with_a_score_for_each_class(head):
    scores = head(torch.randn(2, FEATURES, 2, 5, 3))
    assert scores.shape == (2, CLASSES, 8, 20, 12)
    assert head.stride == (4, 4, 4)
    assert scores.isfinite().all()


def test_the_light_head_has_the_same_shapes_and_takes_no_weights(name):
    head = build_head(unetr(head="light"), name, asdict(SMALL[name]))
    assert isinstance(head, LightHead)
    assert head(torch.randn(1, FEATURES, 2, 3, 2)).shape == (1, CLASSES, 8, 12, 8)
    assert start_head(head, build_tokenizer(name, asdict(SMALL[name]))) == 0


def test_a_light_head_that_misses_the_voxels_is_refused():
    sizes = MaisiConfig(num_channels=(8, 8), num_res_blocks=(1, 1), norm_num_groups=4)
    with pytest.raises(ValueError, match="stride of 4 x 4 x 4 voxels, but this tokenizer has 2 x 2 x 2"):
        build_head(unetr(head="light"), "maisi", asdict(sizes))


@torch.inference_mode()
@pytest.mark.parametrize("axis", [2, 3, 4])
def test_scores_depend_on_the_halo_alone(axis):
    torch.manual_seed(0)
    head = build_head(unetr(), "wavelet", asdict(SMALL["wavelet"]))
    for block in head.decoder:
        torch.nn.init.normal_(block.proj.weight)  # awake: they begin as the identity
    centre, shape = 4, [1, FEATURES, 3, 3, 3]
    shape[axis] = 9
    features = torch.randn(shape)
    changed = features.clone()
    changed.select(axis, centre).add_(1.0)
    moved = (head(changed) - head(features)).abs().movedim(axis, 0).flatten(1).amax(dim=1)
    reached = moved.nonzero().flatten() // 4
    assert (reached.min(), reached.max()) == (centre - head.halo, centre + head.halo)


@torch.inference_mode()
def test_a_coefficient_of_one_changes_its_class_by_the_gain_where_it_reaches():
    head = build_head(unetr(), "wavelet", asdict(SMALL["wavelet"]))
    head.coefficients.weight.zero_()
    head.coefficients.bias[64] = 1.0  # the mean of class 1
    head.coefficients.bias[2 * 64 + 1] = 1.0  # of class 2 the step along z
    scores = head(torch.zeros(1, FEATURES, 1, 1, 1))[0]
    assert scores[0].abs().max() == 0
    torch.testing.assert_close(scores[1], SCORE_GAIN * torch.ones(4, 4, 4))
    torch.testing.assert_close(scores[2], SCORE_GAIN * 8 * haar_matrix()[1].view(4, 4, 4))


@torch.inference_mode()
def test_a_head_begins_with_what_the_decoder_learned_between_its_ends(name, head):
    torch.manual_seed(1)
    tokenizer = build_tokenizer(name, asdict(SMALL[name]))
    for weight in tokenizer.parameters():
        torch.nn.init.normal_(weight)
    own = head.decoder.state_dict()
    before = {each: weight.clone() for each, weight in own.items()}
    given = TOKENIZERS[name].head.decoder_of(tokenizer).state_dict()
    taken = start_head(head, tokenizer)
    fitting = {each for each in own if given[each].shape == own[each].shape}
    assert taken == len(fitting)
    assert set(own) - fitting == ENDS[name]
    for each in own:
        assert torch.equal(own[each], given[each] if each in fitting else before[each])

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.sliding_windows import WindowBlend, blending_weights, cut_window, window_positions

LENGTHS = st.integers(4, 11)
SHAPES = st.tuples(LENGTHS, LENGTHS, LENGTHS)
OVERLAPS = st.floats(0, 0.9)
SIZE = (4, 4, 4)


def test_windows_of_24_over_a_latent_of_60_by_hand():
    positions = window_positions((60, 24, 24), (24, 24, 24), overlap=0.5)
    assert positions == [(0, 0, 0), (12, 0, 0), (24, 0, 0), (36, 0, 0)]


def test_the_last_window_lies_flush_with_the_end():
    starts = [x for x, _, _ in window_positions((50, 24, 24), (24, 24, 24), overlap=0.5)]
    assert starts == [0, 12, 24, 26]


def test_one_window_suffices_for_a_latent_of_its_size():
    assert window_positions((24, 24, 24), (24, 24, 24)) == [(0, 0, 0)]


@given(SHAPES, OVERLAPS)
def test_windows_cover_every_voxel_and_never_twice_the_same(shape, overlap):
    positions = window_positions(shape, SIZE, overlap)
    covered = torch.zeros(shape)
    for position in positions:
        window = cut_window(covered, position, SIZE)
        assert window.shape == SIZE
        window.add_(1)
    assert covered.min() >= 1
    assert len(set(positions)) == len(positions)


def test_weights_fall_to_the_edges_and_are_nowhere_zero():
    weights = blending_weights((24, 24, 24))
    assert weights.min() > 0
    assert weights.max() <= 1
    assert torch.allclose(weights, weights.flip(0, 1, 2), atol=1e-6)
    assert (weights[:12, 12, 12].diff() > 0).all()


def blended(field: torch.Tensor, overlap: float) -> torch.Tensor:
    shape = tuple(field.shape[1:])
    blend = WindowBlend(field.shape[0], shape, SIZE)
    for position in window_positions(shape, SIZE, overlap):
        blend.add(position, cut_window(field, position, SIZE))
    return blend.blended()


@given(SHAPES, OVERLAPS)
def test_constant_and_linear_fields_come_back(shape, overlap):
    x, y, z = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    field = torch.stack([torch.full(shape, 3.0), 2 * x - y + 0.5 * z])
    assert torch.allclose(blended(field, overlap), field, rtol=1e-5, atol=1e-5)


def test_where_two_windows_disagree_the_nearer_centre_weighs_more():
    blend = WindowBlend(1, (4, 4, 6), SIZE)
    blend.add((0, 0, 0), torch.zeros(1, *SIZE)).add((0, 0, 2), torch.ones(1, *SIZE))
    along_z = blend.blended()[0, 2, 2]
    # Weights sin^2 of 22.5, 67.5, 112.5, 157.5 degrees add up to 1 where windows overlap by half.
    assert torch.allclose(along_z, torch.tensor([0, 0, 0.1464466, 0.8535534, 1, 1]), atol=1e-6)


def test_a_gap_never_passes_for_a_value():
    blend = WindowBlend(1, (8, 4, 4), SIZE).add((0, 0, 0), torch.ones(1, *SIZE))
    with pytest.raises(ValueError, match="gaps"):
        blend.blended()


@pytest.mark.parametrize(
    ("shape", "overlap"), [((20, 24, 24), 0.5), ((24, 24, 24), 1.0), ((24, 24, 24), -0.1)]
)
def test_what_windows_cannot_cover_is_refused(shape, overlap):
    with pytest.raises(ValueError, match=r"smaller than one window|overlap"):
        window_positions(shape, (24, 24, 24), overlap)

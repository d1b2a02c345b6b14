import math

import pytest
import torch

from napari_meduet.core.positions import sincos_positions


def test_positions_of_two_tokens_by_hand():
    # Width 6: one frequency, 1, per axis. The second token is one step along z.
    expected = [[0, 1, 0, 1, 0, 1], [0, 1, 0, 1, math.sin(1), math.cos(1)]]
    assert torch.allclose(sincos_positions((1, 1, 2), 6), torch.tensor(expected, dtype=torch.float32))


def test_every_token_of_the_papers_grid_has_its_own_position():
    positions = sincos_positions((6, 6, 6), 768)
    assert positions.shape == (216, 768)
    assert torch.cdist(positions, positions).fill_diagonal_(torch.inf).min() > 1


def test_a_tokens_position_does_not_depend_on_the_size_of_the_grid():
    small = sincos_positions((2, 3, 4), 24).reshape(2, 3, 4, 24)
    large = sincos_positions((5, 5, 5), 24).reshape(5, 5, 5, 24)
    assert torch.equal(small, large[:2, :3, :4])


def test_a_width_that_three_axes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="multiple of 6"):
        sincos_positions((6, 6, 6), 100)

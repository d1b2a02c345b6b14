"""Windows in scans: voxels where nothing is turned, enough body wherever there is some."""

import pytest
import torch

from meduet_training.data.augmentation.spatial import BODY_SHARE, SIDE, STRETCH, Placement, cut, place

SHAPE = (110, 100, 120)


def places(body: torch.Tensor, count: int = 30) -> list[Placement]:
    generator = torch.Generator().manual_seed(0)
    return [place(body, generator) for _ in range(count)]


def test_an_unturned_window_is_the_scans_own_voxels():
    scan = torch.rand(SHAPE)
    placement = Placement(torch.tensor([54.5, 49.5, 60.5]), torch.eye(3))
    window = cut(scan, placement, "border")
    torch.testing.assert_close(window, scan[7:103, 2:98, 13:109], atol=1e-4, rtol=0)


def test_a_mirrored_window_exchanges_right_and_left():
    scan = torch.rand(SHAPE)
    centre = torch.tensor([54.5, 49.5, 60.5])
    plain = cut(scan, Placement(centre, torch.eye(3)), "border")
    mirrored = cut(scan, Placement(centre, torch.diag(torch.tensor([-1.0, 1.0, 1.0]))), "border")
    torch.testing.assert_close(mirrored, plain.flip(0), atol=1e-4, rtol=0)


def test_half_of_the_windows_fall_on_voxels():
    drawn = places(torch.ones(SHAPE, dtype=torch.bool))
    unturned = [placement for placement in drawn if placement.matrix.abs().equal(torch.eye(3))]
    assert 8 <= len(unturned) <= 22
    for placement in unturned:
        first = placement.centre - (SIDE - 1) / 2
        assert torch.equal(first, first.round())


def test_turned_windows_keep_right_angles_and_bounded_scale():
    for placement in places(torch.ones(SHAPE, dtype=torch.bool)):
        gram = placement.matrix.T @ placement.matrix
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(3), atol=1e-5, rtol=0)
        assert STRETCH[0] <= gram[0, 0].sqrt() <= STRETCH[1] or gram[0, 0] == 1


def test_windows_lie_where_the_body_is():
    body = torch.zeros(240, 96, 96, dtype=torch.bool)
    body[:70] = True  # the farthest third of all places would show none of it
    for placement in places(body):
        start = int(placement.centre[0] - SIDE / 2)
        assert body[max(0, start) : start + SIDE].float().mean() >= BODY_SHARE


@pytest.mark.parametrize(("outside", "value"), [("border", 7.0), ("zeros", 0.0)])
def test_beyond_a_small_scan_lies_what_was_asked_for(outside, value):
    window = cut(torch.full((40, 40, 40), 7.0), Placement(torch.full((3,), 19.5), torch.eye(3)), outside)
    assert window[SIDE // 2, SIDE // 2, SIDE // 2] == 7.0
    assert window[0, 0, 0] == value

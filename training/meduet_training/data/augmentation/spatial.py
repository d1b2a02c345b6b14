"""Where a window lies in a scan: placed, turned, stretched and mirrored at random, and cut out there."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn import functional as F

SIDE = 96  # voxels, M-02
WINDOW = (SIDE, SIDE, SIDE)
BODY_SHARE = 0.15  # of a window at least, where the scan allows it
ATTEMPTS = 10
ROTATION = math.radians(12.0)
STRETCH = (0.85, 1.15)
JITTER = 10.0  # voxels by which a scan smaller than a window is moved


@dataclass(frozen=True, eq=False)
class Placement:
    """A window's voxel p, counted from the window's centre, lies at matrix @ p + centre in the scan."""

    centre: Float[Tensor, "3"]
    matrix: Float[Tensor, "3 3"]


def place(
    body: Bool[Tensor, "X Y Z"], generator: Generator, sides: tuple[int, int, int] = WINDOW
) -> Placement:
    """A place that shows enough of the body; half of them are turned, half are as sharp as the scan.

    Args:
        sides: voxels of the window along each axis.
    """
    angles = [_between(-ROTATION, ROTATION, generator) for _ in range(3)]
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        matrix = _turn(axis, angle) @ matrix
    matrix = matrix * _between(*STRETCH, generator)
    if _between(0.0, 1.0, generator) < 0.5:
        matrix = torch.eye(3)
    if _between(0.0, 1.0, generator) < 0.5:
        matrix[:, 0] *= -1  # left and right exchanged
    shape = torch.tensor(body.shape, dtype=torch.float32)
    centre = (shape - 1) / 2
    window = torch.tensor(sides)
    room = (shape - window).clamp(min=0.0) / 2 + torch.where(shape < window, JITTER, 0.0)
    for _ in range(ATTEMPTS):
        shift = torch.tensor([_between(-1.0, 1.0, generator) for _ in range(3)])
        centre = ((shape - 1) / 2 + shift * room).round() + 0.5
        low = (centre - window / 2).clamp(min=0).long().tolist()
        high = (centre + window / 2).clamp(min=1).long().tolist()
        if body[low[0] : high[0], low[1] : high[1], low[2] : high[2]].float().mean() >= BODY_SHARE:
            break
    return Placement(centre, matrix)


def cut(
    volume: Float[Tensor, "X Y Z"],
    placement: Placement,
    outside: str,
    sides: tuple[int, int, int] = WINDOW,
) -> Float[Tensor, "x y z"]:
    """The window that a placement cuts from a volume, trilinear.

    Args:
        outside: what lies beyond the volume: "border", its last voxels, or "zeros".
        sides: voxels of the window along each axis.
    """
    steps = [torch.arange(side) - (side - 1) / 2 for side in sides]
    grid = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1)  # (x, y, z, 3)
    places = grid @ placement.matrix.T + placement.centre
    places = 2.0 * places / (torch.tensor(volume.shape) - 1).clamp(min=1) - 1.0
    sampled = F.grid_sample(
        volume[None, None], places.flip(-1)[None], padding_mode=outside, align_corners=True
    )
    return sampled[0, 0]


def _turn(axis: int, angle: float) -> Float[Tensor, "3 3"]:
    """The rotation about one axis."""
    one, other = (k for k in range(3) if k != axis)
    turn = torch.eye(3)
    turn[one, one] = turn[other, other] = math.cos(angle)
    turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
    return turn


def _between(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))

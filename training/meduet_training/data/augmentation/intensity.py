"""Profile units of crops and windows, as differentiable tensors: what a tokenizer reads and writes (M-03)."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from napari_meduet.volumes.intensity import CT_FULL, IntensityProfile


def to_units(
    values: Float[Tensor, "*shape"], modality: str, ct_profile: IntensityProfile = CT_FULL
) -> Float[Tensor, "*shape"]:
    """Return normalised intensity. The profile maps CT in HU; prepared MR is only clamped to [0, 1]."""
    return _interpolated(values, ct_profile.knots) if modality == "CT" else values.clamp(0.0, 1.0)


def to_hu(units: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """HU of `ct-full` units, continued in a straight line outside [0, 1]."""
    return _interpolated(units, [(unit, value) for value, unit in CT_FULL.knots], clamp=False)


def _interpolated(values: Tensor, knots: Sequence[tuple[float, float]], *, clamp: bool = True) -> Tensor:
    """The piecewise-linear function through the knots, differentiable."""
    (x, y), slopes = knots[0], [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(knots)]
    if clamp:
        values = values.clamp(knots[0][0], knots[-1][0])
    result = y + slopes[0] * (values - x)
    for (knot, _), before, after in zip(knots[1:-1], slopes[:-1], slopes[1:], strict=True):
        result = result + (after - before) * F.relu(values - knot)
    return result

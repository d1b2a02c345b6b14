"""The straight path between data and noise: t = 0 is data, t = 1 is noise (Table 10, SiT's column).

This file alone states the direction of time. The published SiT code runs the other way; a test compares the
two under t -> 1 - t. How the path is walked is samplers.py's business.
"""

from jaxtyping import Float
from torch import Tensor


def broadcast(time: Float[Tensor, " B"], like: Float[Tensor, "B *S"]) -> Float[Tensor, "B ..."]:
    """One number a row, shaped to multiply rows."""
    return time.view(-1, *[1] * (like.ndim - 1))


def noised(
    data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """x_t = (1 - t) x + t e."""
    t = broadcast(time, data)
    return (1 - t) * data + t * noise


def velocity(data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
    """dx_t / dt = e - x, the same all along the path."""
    return noise - data


def data_of(x: Float[Tensor, "B *S"], velocity: Float[Tensor, "B *S"], time: float) -> Float[Tensor, "B *S"]:
    """The data at the end of a straight path: x_t - t v."""
    return x - time * velocity


def noise_of(x: Float[Tensor, "B *S"], velocity: Float[Tensor, "B *S"], time: float) -> Float[Tensor, "B *S"]:
    """The noise at the beginning of a straight path: x_t + (1 - t) v."""
    return x + (1 - time) * velocity


def velocity_of_data(
    x: Float[Tensor, "B *S"], data: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """The velocity that ends in this data: (x_t - x) / t. Not defined at t = 0, where no sampler asks."""
    return (x - data) / broadcast(time, x)

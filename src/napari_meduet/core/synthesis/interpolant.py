"""The straight path between data and noise of SiT: t = 0 is data, t = 1 is noise (Table 10).

Only this file defines the direction of time. The published SiT code uses the opposite direction; a test
compares both under t -> 1 - t. `samplers.py` follows the path.
"""

from jaxtyping import Float
from torch import Tensor


def broadcast(time: Float[Tensor, " B"], like: Float[Tensor, "B *S"]) -> Float[Tensor, "B ..."]:
    """Return one number per row, in a shape that multiplies rows."""
    return time.view(-1, *[1] * (like.ndim - 1))


def noised(
    data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """Return x_t = (1 - t) x + t e."""
    t = broadcast(time, data)
    return (1 - t) * data + t * noise


def velocity(data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
    """Return the velocity dx_t / dt = e - x, which is constant along the path."""
    return noise - data


def data_of(x: Float[Tensor, "B *S"], velocity: Float[Tensor, "B *S"], time: float) -> Float[Tensor, "B *S"]:
    """Return the data at the end of a straight path: x_t - t v."""
    return x - time * velocity


def noise_of(x: Float[Tensor, "B *S"], velocity: Float[Tensor, "B *S"], time: float) -> Float[Tensor, "B *S"]:
    """Return the noise at the beginning of a straight path: x_t + (1 - t) v."""
    return x + (1 - time) * velocity


def velocity_of_data(
    x: Float[Tensor, "B *S"], data: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """Return the velocity of the path that ends in this data: (x_t - x) / t, not defined at t = 0."""
    return (x - data) / broadcast(time, x)

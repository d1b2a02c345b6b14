"""Linear layers that multiply 8-bit integers, for faster inference on processors with such instructions.

Weights are rounded once, with one scale per output. Activations are rounded at each call, with one scale per
row. The quantised tensors of torch.ao are deprecated, so this file uses torch's product of plain int8
tensors. No gradient flows through these layers. `synthesis/acceleration.py` decides when to use them.
"""

import copy
from functools import cache
from typing import TypeVar

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from napari_meduet.core.transformer import Block

LARGEST = 127  # largest signed 8-bit integer; -128 is not used, so the range is symmetric
SMALLEST_SCALE = 1e-12  # avoids 0 / 0 in a row of zeros

Network = TypeVar("Network", bound=nn.Module)


class QuantisedLinear(nn.Module):
    """Linear layer whose product is computed in 8-bit integers and accumulated in 32 bits."""

    weight: Int8[Tensor, "O I"]
    scale: Float[Tensor, " O"]

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantised_rows(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.squeeze(-1))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        rows, scale = quantised_rows(x.reshape(-1, x.shape[-1]))
        product = torch._int_mm(rows, self.weight.t()) * scale  # (N, O), 32-bit floats
        product = product * self.scale if self.bias is None else torch.addcmul(self.bias, product, self.scale)
        return product.reshape(*x.shape[:-1], -1)


def quantised_rows(
    rows: Float[Tensor, "N I"],
) -> tuple[Int8[Tensor, "N I"], Float[Tensor, "N 1"]]:
    """Return the rows as integers from -127 to 127, and the scale of each row."""
    scale = (rows.abs().amax(dim=-1, keepdim=True) / LARGEST).clamp(min=SMALLEST_SCALE)
    return (rows / scale).round_().to(torch.int8), scale


def with_quantised_blocks(network: Network) -> Network:
    """Return a copy of the network whose transformer blocks multiply 8-bit integers.

    Raises:
        ValueError: the 8-bit products of this processor overflow.
    """
    if not multiplies_exactly():
        raise ValueError("The 8-bit products of this processor overflow. Choose precision float32.")
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    linears = [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]
    # deepcopy treats every object in its memo as copied already, so it inserts the quantised layers.
    return copy.deepcopy(network, {id(linear): QuantisedLinear(linear) for linear in linears})


@cache
def multiplies_exactly() -> bool:
    """Return whether the largest 8-bit products add up without overflow.

    Processors without VNNI instructions accumulate in 16 bits and overflow.
    """
    row = torch.full((32, 64), LARGEST, dtype=torch.int8)
    return bool((torch._int_mm(row, row.t()) == 64 * LARGEST**2).all())

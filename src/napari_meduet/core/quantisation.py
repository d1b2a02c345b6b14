"""Linear layers that multiply 8-bit integers: faster sampling on processors that are good at them.

Weights are rounded once, a scale for each output; rows of activations as they come, a scale for each row.
What torch.ao offered for this is deprecated together with its quantised tensors; the product of plain 8-bit
tensors stays. No gradient flows through these layers.
"""

import copy
from functools import cache
from typing import TypeVar

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from napari_meduet.core.transformer import Block

LARGEST = 127  # of a signed 8-bit integer, used evenly on both sides of 0
SMALLEST_SCALE = 1e-12  # keeps a row of zeros a row of zeros

Network = TypeVar("Network", bound=nn.Module)


class QuantisedLinear(nn.Module):
    """A linear layer's product in 8-bit integers, added up in 32 bits."""

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
    """Rows as integers from -127 to 127, and what one of each row's is worth."""
    scale = (rows.abs().amax(dim=-1, keepdim=True) / LARGEST).clamp(min=SMALLEST_SCALE)
    return (rows / scale).round_().to(torch.int8), scale


def with_quantised_blocks(network: Network) -> Network:
    """A copy whose transformer blocks multiply 8-bit integers; all else is as it was.

    Raises:
        ValueError: this processor's 8-bit products overflow.
    """
    if not multiplies_exactly():
        raise ValueError("This processor's 8-bit products overflow. Choose precision float32.")
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    linears = [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]
    # What deepcopy finds in its memo it takes for copied already.
    return copy.deepcopy(network, {id(linear): QuantisedLinear(linear) for linear in linears})


@cache
def multiplies_exactly() -> bool:
    """Whether the largest 8-bit products add up without overflow; processors before VNNI add in 16 bits."""
    row = torch.full((32, 64), LARGEST, dtype=torch.int8)
    return bool((torch._int_mm(row, row.t()) == 64 * LARGEST**2).all())

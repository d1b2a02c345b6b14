"""Pre-norm transformer blocks with fused attention and an MLP (M-14, M-17).

`meduet.py` builds its encoder and decoder from these blocks, `synthesis/generator.py` its generator.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-6  # M-14

TokenHook = Callable[[int, Float[Tensor, "B L D"]], Float[Tensor, "B L D"]]


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        qkv = self.qkv(tokens)  # (B, L, 3 D)
        query, key, value = rearrange(qkv, "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out(rearrange(attended, "b h l d -> b l (h d)"))


class Block(nn.Module):
    """Self-attention, then an MLP; each has a layer norm in front and a skip connection beside it."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width)
        )

    def forward(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class Transformer(nn.Module):
    """A stack of blocks that ends in a layer norm.

    Attributes:
        recomputes: activation checkpointing. Activations inside blocks are computed again for the gradient.
            The results are the same, the work grows by a third, and memory is needed for one block only.
    """

    def __init__(self, *, width: int, depth: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.recomputes = False

    def forward(
        self, tokens: Float[Tensor, "B L D"], before_block: TokenHook | None = None
    ) -> Float[Tensor, "B L D"]:
        """Run the transformer blocks and return the normalised tokens.

        Args:
            before_block: called with the number of each block and its input tokens; returns the tokens that
                enter the block.
        """
        for number, block in enumerate(self.blocks):
            if before_block is not None:
                tokens = before_block(number, tokens)
            if self.recomputes and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens)
        return self.norm(tokens)


def initialise(module: nn.Module) -> None:
    """Give linear layers Xavier-uniform weights and zero biases, as MAE does; use with `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        torch.nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)

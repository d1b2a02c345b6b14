"""Token demixing (Eq. 1): draw pairs and masks, mix two volumes token by token, score the reconstructions.

The volumes i and j of a pair are rows of one batch; `partner[b]` is the row of the volume that is mixed into
row b. A mask is 1 where the token comes from the partner j, so the token of volume i is hidden there.
`objective.py` runs the networks.
"""

from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Generator, Tensor

Pairing = Literal["flip", "random", "cross_domain"]
PairReduction = Literal["mean", "sum"]  # over the two volumes of a mixture


def draw_pairs(domain: Int[Tensor, "B"], pairing: Pairing, generator: Generator) -> Int[Tensor, "B"]:
    """Return the partner of each volume. Pairs are mutual: the partner's partner is the volume itself.

    Args:
        domain: domain of each volume; -1 means unlabelled and counts as a domain of its own.
        pairing: `flip` reverses the batch, as the published code does. `random` draws pairs. `cross_domain`
            draws pairs of different domains; this works for every volume if no domain fills more than half
            of the batch.
    """
    num_volumes = domain.shape[0]
    if num_volumes % 2:
        raise ValueError(f"Volumes are mixed in pairs, so a batch needs an even number; got {num_volumes}.")
    if pairing == "flip":
        return torch.arange(num_volumes - 1, -1, -1)

    order = torch.randperm(num_volumes, generator=generator)
    if pairing == "cross_domain":
        order = order[torch.argsort(_domain_rank(domain[order], generator), stable=True)]
    # Partners are half a batch apart in the sorted order, so a domain of at most half a batch never meets
    # itself.
    first, second = order.chunk(2)
    partner = torch.empty_like(order)
    partner[first], partner[second] = second, first
    return partner


def _domain_rank(domain: Int[Tensor, "B"], generator: Generator) -> Float[Tensor, "B"]:
    """Return one random number for each domain; each unlabelled volume gets its own number."""
    own = torch.rand(domain.shape[0], generator=generator)
    same = (domain[:, None] == domain[None, :]) & (domain >= 0)[:, None]
    same = same | torch.eye(domain.shape[0], dtype=torch.bool)
    return torch.where(same, own[None, :], -1.0).amax(dim=1)


def draw_mask(num_tokens: int, ratio: float, generator: Generator) -> Float[Tensor, "L"]:
    """Return a mask for one volume, with a fixed number of ones at random positions."""
    rank = torch.rand(num_tokens, generator=generator).argsort().argsort()
    return (rank < round(num_tokens * ratio)).float()


def mix(
    latent_i: Float[Tensor, "B C X Y Z"],
    latent_j: Float[Tensor, "B C X Y Z"],
    mask: Float[Tensor, "B L"],
    grid: tuple[int, int, int],
) -> Float[Tensor, "B C X Y Z"]:
    """Return volume i with the patches under the mask taken from volume j.

    The published network mixes after patch embedding and positions. Both volumes share those, so mixing the
    latents gives the same mixture.
    """
    x, y, z = grid
    p, q, r = (size // n for size, n in zip(latent_i.shape[2:], grid, strict=True))
    on_grid = rearrange(mask, "b (x y z) -> b 1 x y z", x=x, y=y, z=z)
    from_partner = repeat(on_grid, "b 1 x y z -> b 1 (x p) (y q) (z r)", p=p, q=q, r=r)
    return torch.where(from_partner > 0, latent_j, latent_i)


def reconstruction_loss(
    recovered_i: Float[Tensor, "B C X Y Z"],
    recovered_j: Float[Tensor, "B C X Y Z"],
    latent_i: Float[Tensor, "B C X Y Z"],
    latent_j: Float[Tensor, "B C X Y Z"],
    reduction: PairReduction = "mean",
) -> Float[Tensor, ""]:
    """Mean squared error of all tokens of both volumes recovered from a mixture. Eq. (1).

    Row b of both reconstructions was unmixed with mask b. The published code takes the hidden tokens of
    volume j from another row under this row's mask, so about a quarter of the tokens it scores are copies of
    visible tokens (C-01).

    Args:
        reduction: over the two volumes: `sum` is the paper's text, `mean` is half of it.
    """
    error_i = (recovered_i - latent_i).float().square().mean()
    error_j = (recovered_j - latent_j).float().square().mean()
    total = error_i + error_j
    return total / 2 if reduction == "mean" else total

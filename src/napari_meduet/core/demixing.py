"""Token demixing (Eq. 1): two volumes are mixed token by token and told apart again.

Volumes i and j lie in one batch; `partner[b]` is the place of the volume mixed into volume b. This file
draws the pairs and the masks, mixes, and scores the reconstructions. In a mask, 1 means that the token came
from the partner j, and so that volume i's own token is hidden there.
"""

from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Generator, Tensor

Pairing = Literal["flip", "random", "cross_domain"]


def draw_pairs(domain: Int[Tensor, "B"], pairing: Pairing, generator: Generator) -> Int[Tensor, "B"]:
    """The partner of each volume; the partner's partner is the volume itself.

    Args:
        domain: -1 where unlabelled; such a volume counts as a domain of its own.
        pairing: `flip` mirrors the batch as the published code does; `random` draws pairs; `cross_domain`
            draws pairs of different domains, which succeeds for all as long as no domain fills more than
            half the batch.
    """
    num_volumes = domain.shape[0]
    if num_volumes % 2:
        raise ValueError(f"Volumes are mixed in pairs, so a batch needs an even number; got {num_volumes}.")
    if pairing == "flip":
        return torch.arange(num_volumes - 1, -1, -1)

    order = torch.randperm(num_volumes, generator=generator)
    if pairing == "cross_domain":
        order = order[torch.argsort(_domain_rank(domain[order], generator), stable=True)]
    # Half a batch apart: sorted by domain, no run of at most half the batch meets itself.
    first, second = order.chunk(2)
    partner = torch.empty_like(order)
    partner[first], partner[second] = second, first
    return partner


def _domain_rank(domain: Int[Tensor, "B"], generator: Generator) -> Float[Tensor, "B"]:
    """A random number for each domain, the same for all its volumes; a number of its own where unlabelled."""
    own = torch.rand(domain.shape[0], generator=generator)
    same = (domain[:, None] == domain[None, :]) & (domain >= 0)[:, None]
    same = same | torch.eye(domain.shape[0], dtype=torch.bool)
    return torch.where(same, own[None, :], -1.0).amax(dim=1)


def draw_mask(num_tokens: int, ratio: float, generator: Generator) -> Float[Tensor, "L"]:
    """A mask for one volume: a fixed number of tokens from the partner, at random places."""
    rank = torch.rand(num_tokens, generator=generator).argsort().argsort()
    return (rank < round(num_tokens * ratio)).float()


def mix(
    latent_i: Float[Tensor, "B C X Y Z"],
    latent_j: Float[Tensor, "B C X Y Z"],
    mask: Float[Tensor, "B L"],
    grid: tuple[int, int, int],
) -> Float[Tensor, "B C X Y Z"]:
    """Volume i with the patches under the mask taken from volume j.

    The published network mixes after patch embedding and positions; both volumes share those, so mixing the
    latents is the same mixture.
    """
    x, y, z = grid
    p, q, r = (size // n for size, n in zip(latent_i.shape[2:], grid, strict=True))
    cubes = rearrange(mask, "b (x y z) -> b 1 x y z", x=x, y=y, z=z)
    from_partner = repeat(cubes, "b 1 x y z -> b 1 (x p) (y q) (z r)", p=p, q=q, r=r)
    return torch.where(from_partner > 0, latent_j, latent_i)


def reconstruction_loss(
    recovered_i: Float[Tensor, "B C X Y Z"],
    recovered_j: Float[Tensor, "B C X Y Z"],
    latent_i: Float[Tensor, "B C X Y Z"],
    latent_j: Float[Tensor, "B C X Y Z"],
) -> Float[Tensor, ""]:
    """Mean squared error of all tokens of both volumes recovered from a mixture. Eq. (1).

    Row b of both reconstructions was unmixed with mask b. The published code takes volume j's hidden tokens
    from another row under this row's mask, so about a quarter of what it scores are copies of visible
    tokens (C-01).
    """
    error_i = (recovered_i - latent_i).float().square().mean()
    error_j = (recovered_j - latent_j).float().square().mean()
    return (error_i + error_j) / 2

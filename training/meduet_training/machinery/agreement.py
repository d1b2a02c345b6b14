"""What one rank knows and all must act on together: a signal, a loss that is no number."""

import torch
from lightning_fabric import Fabric
from torch import Tensor


def any_rank(fabric: Fabric, *claims: bool) -> tuple[bool, ...]:
    """Whether each claim is true on any rank, the same answer everywhere. All ranks must ask together."""
    if fabric.world_size == 1:
        return claims
    votes = torch.tensor(claims, dtype=torch.float32, device=fabric.device)
    total = fabric.all_reduce(votes, reduce_op="sum")
    assert isinstance(total, Tensor)
    return tuple(bool(count > 0) for count in total.tolist())

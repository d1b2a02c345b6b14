"""The part of a training step on which all processes have to agree.

If a loss or gradient is not finite on one process, all processes skip the step, so no weight becomes NaN.
The losses and the requests to stop travel in one small all-reduce per step. `trainer.py` holds the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from meduet_training.engine.callbacks import StepRecord
from napari_meduet.core.objective import Batch

FEATURE_NORM = "norm."  # prefix of the values that an objective returns for the log only


@dataclass(frozen=True, kw_only=True, eq=False)
class StepResult:
    """Result of one step. Only the times in `record` and `parts` differ between processes.

    Attributes:
        record: losses and norms, means over all parts of the batch and all processes, and times.
        was_taken: False if a loss or gradient was not finite; then the weights are unchanged.
        should_stop: True if any process was asked to stop.
        parts: the batches of this process.
    """

    record: StepRecord
    was_taken: bool
    should_stop: bool
    parts: Sequence[Batch]


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of the mean gradient; of all shards if each process holds one shard of it."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def mean_over_processes(
    fabric: Fabric, losses: dict[str, Tensor], should_stop: bool
) -> tuple[dict[str, Tensor], bool]:
    """Return the losses averaged over the processes, and whether any process was asked to stop."""
    if fabric.world_size == 1:
        return losses, should_stop
    request = torch.tensor(float(should_stop), device=fabric.device)
    together = torch.stack([*losses.values(), request])
    torch.distributed.all_reduce(together)
    *means, request = (together / fabric.world_size).unbind()
    return dict(zip(losses, means, strict=True)), bool(request > 0)


@torch.no_grad()
def offending_rows(fabric: Fabric, objective: nn.Module, step: int, parts: Sequence[Batch]) -> Tensor:
    """Return which rows of a batch made a step not finite, as booleans in the order of `StepBatches.choose`.

    These are the rows that are not finite themselves, or else the rows whose pair alone has a loss that is
    not finite. If only a gradient was not finite, all values are False. All processes call this together,
    each with its own parts of the batch.
    """
    rows = parts[0]["latent"].shape[0]
    offends = torch.zeros(len(parts), fabric.world_size, rows, device=fabric.device)
    for part, batch in enumerate(parts):
        offends[part, fabric.global_rank] = (~batch["latent"].flatten(1).isfinite().all(dim=1)).float()
    if fabric.world_size > 1:
        torch.distributed.all_reduce(offends)
    if offends.any():
        return offends.flatten() > 0
    together = 2 if "partner" in parts[0] and rows % 2 == 0 else 1
    with torch.compiler.set_stance("force_eager"):
        for part, batch in enumerate(parts):
            for first in range(0, rows, together):
                few = _rows_of(batch, first, together)
                total = cast(Any, objective)(few, step)["total"]
                if not total.isfinite():
                    offends[part, fabric.global_rank, first : first + together] = 1.0
    if isinstance(objective, FSDPModule):
        objective.reshard()  # a forward pass without a backward pass leaves the weights gathered
    if fabric.world_size > 1:
        torch.distributed.all_reduce(offends)
    return offends.flatten() > 0


def _rows_of(batch: Batch, first: int, count: int) -> Batch:
    """Return some rows of a batch. Partners are neighbours, so a pair stays a pair."""
    few: dict[str, Any] = {
        name: cast(Tensor, value)[first : first + count] if cast(Tensor, value).ndim else value
        for name, value in batch.items()
    }
    if "partner" in few:
        few["partner"] = few["partner"] - first
    return cast(Batch, few)

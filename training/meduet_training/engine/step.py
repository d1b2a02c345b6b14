"""One step of a training: forward, backward, and what all processes agree on before any weight moves.

A loss or gradient that is not finite on one process is not finite on any: all of them skip the step, so no
weight ever takes a NaN. Every process asks the others at each step, in one small sum.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from meduet_training.data.sources.prefetching import Loading
from meduet_training.runtime.heartbeat import COMPUTING, At, nowhere
from napari_meduet.core.objective import Batch

WATCHED = "norm."  # begins what an objective returns for watching, beside its losses


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of a step, the same on all processes but for `seconds` and `waited`.

    Attributes:
        losses, feature_norms: means over all parts of the batch and all processes.
        was_taken: else a loss or gradient was not finite, and nothing has moved.
        is_stopped: some process was asked to stop.
        parts: the batches of this process.
        waited: seconds of `seconds` for data.
    """

    losses: dict[str, Tensor]
    feature_norms: dict[str, Tensor]
    gradient_norm: Tensor
    was_taken: bool
    is_stopped: bool
    parts: Sequence[Batch]
    seconds: float
    waited: float


class Stepping:
    """Takes steps of a model that Fabric has set up.

    Args:
        objective: the module inside `model`, for what is no forward pass.
        clip: largest norm of the gradient.
    """

    def __init__(
        self,
        fabric: Fabric,
        objective: nn.Module,
        model: _FabricModule,
        optimizer: _FabricOptimizer,
        *,
        accumulate: int,
        clip: float,
    ) -> None:
        self.fabric, self.objective, self.model, self.optimizer = fabric, objective, model, optimizer
        self.accumulate, self.clip = accumulate, clip
        self.trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]

    def take(
        self,
        step: int,
        learning_rate: float,
        loading: Loading,
        is_stopped: Callable[[], bool],
        at: At = nowhere,
    ) -> Outcome:
        """Compute the step's gradient on all processes, and take the step if all of it is finite."""
        began, waited_before = time.monotonic(), loading.waited
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["share"]
        parts, sums = [], {}
        for part in range(self.accumulate):
            at(step, "reading")
            batch = self.fabric.to_device(loading.next())
            at(step, COMPUTING)
            is_last = part + 1 == self.accumulate
            with self.fabric.no_backward_sync(self.model, enabled=not is_last):
                losses = self.model(batch, step)
                self.fabric.backward(losses["total"] / self.accumulate)
            parts.append(batch)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() / self.accumulate
        norm = self._gradient_norm()
        means, ends_here = self._agree(sums, is_stopped())
        was_taken = bool((means["total"] + norm).isfinite())
        if was_taken:
            nn.utils.clip_grads_with_norm_(self.trained, self.clip, norm)
            self.optimizer.step()
            cast(Any, self.objective).finish_step(step)
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(
            losses={name: value for name, value in means.items() if not name.startswith(WATCHED)},
            feature_norms={
                name.removeprefix(WATCHED): value for name, value in means.items() if name.startswith(WATCHED)
            },
            gradient_norm=norm,
            was_taken=was_taken,
            is_stopped=ends_here,
            parts=parts,
            seconds=time.monotonic() - began,
            waited=loading.waited - waited_before,
        )

    def _gradient_norm(self) -> Tensor:
        """Of the mean gradient; over all processes where each holds a part of it."""
        gradients = [parameter.grad for parameter in self.trained if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _agree(self, sums: dict[str, Tensor], asked_to_stop: bool) -> tuple[dict[str, Tensor], bool]:
        """Means over the processes, and whether any of them was asked to stop."""
        asked = torch.tensor(float(asked_to_stop), device=self.fabric.device)
        if self.fabric.world_size == 1:
            return sums, asked_to_stop
        together = torch.stack([*sums.values(), asked])
        torch.distributed.all_reduce(together)
        *means, asked = (together / self.fabric.world_size).unbind()
        return dict(zip(sums, means, strict=True)), bool(asked > 0)


@torch.no_grad()
def offending_rows(stepping: Stepping, step: int, parts: Sequence[Batch]) -> Tensor:
    """Which rows of the step's whole batch are to blame, by the order of `StepBatches.choose`: booleans.

    Rows that are not finite themselves; else those whose pair has a loss that is not, computed alone. None at
    all where only a gradient was not finite. To be called on all processes together, with their own parts.
    """
    fabric = stepping.fabric
    rows = parts[0]["latent"].shape[0]
    blamed = torch.zeros(len(parts), fabric.world_size, rows, device=fabric.device)
    for part, batch in enumerate(parts):
        blamed[part, fabric.global_rank] = (~batch["latent"].flatten(1).isfinite().all(dim=1)).float()
    if fabric.world_size > 1:
        torch.distributed.all_reduce(blamed)
    if blamed.any():
        return blamed.flatten() > 0
    together = 2 if "partner" in parts[0] and rows % 2 == 0 else 1
    with torch.compiler.set_stance("force_eager"):
        for part, batch in enumerate(parts):
            for first in range(0, rows, together):
                few = _rows_of(batch, first, together)
                total = cast(Any, stepping.objective)(few, step)["total"]
                if not total.isfinite():
                    blamed[part, fabric.global_rank, first : first + together] = 1.0
    if isinstance(stepping.objective, FSDPModule):
        stepping.objective.reshard()  # a forward pass alone leaves the weights put together
    if fabric.world_size > 1:
        torch.distributed.all_reduce(blamed)
    return blamed.flatten() > 0


def _rows_of(batch: Batch, first: int, count: int) -> Batch:
    """Rows of a batch alone; partners are side by side, so a pair stays one."""
    few: dict[str, Any] = {
        name: cast(Tensor, value)[first : first + count] if cast(Tensor, value).ndim else value
        for name, value in batch.items()
    }
    if "partner" in few:
        few["partner"] = few["partner"] - first
    return cast(Batch, few)

"""Pretraining MeDUET on latent windows: one readable loop, restartable after any step.

`for step: draw, losses = objective(batch, step), backward, clip, step, teacher`. What the losses are is
`napari_meduet.core.objective`'s business. Every step draws its random numbers from its own seed, so a run
that was interrupted goes on as if it had not been.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW

from meduet_training.data.latent_windows import LatentWindows
from meduet_training.data.sampling import WindowSampler
from meduet_training.linear_start import start_from_linear_code
from meduet_training.machinery.schedules import warmup_cosine
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Objective, ObjectiveConfig
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One pretraining; the defaults are those of Sec. 4.1 where it states them (SPEC section 6)."""

    network: MeDUETConfig
    objective: ObjectiveConfig  # its total_steps is the length of the run
    batch: int = 64
    learning_rate: float = 1e-4
    end_learning_rate: float = 2e-5
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    warmup: float = 0.01  # of the steps
    linear_start: bool = False  # ours: for runs too short to learn what principal components know
    seed: int = 2025
    checkpoint_every: int = 100  # steps

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise ValueError(
                f"batch holds the partners of a mixture and must be at least 2; got {self.batch}."
            )


def run_pretraining(
    fabric: Fabric,
    windows: LatentWindows,
    training: Pretraining,
    folder: Path,
    on_step: Callable[[int, dict[str, Tensor]], None] = lambda step, losses: None,
) -> Objective:
    """Train, or go on where the folder's checkpoint ends; `on_step` hears the losses of each step.

    Raises:
        InputError: the folder holds a checkpoint of another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mean, std = windows.statistics()
    sampler = WindowSampler(windows, mean, std, fabric.device, training.seed)
    fabric.seed_everything(training.seed, verbose=False)
    objective = Objective(training.network, training.objective)
    if training.linear_start:
        start_from_linear_code(objective, sampler.draw(-1, 64)["latent"].cpu())
    optimizer = _optimizer(objective, training)
    first = _resume(folder / CHECKPOINT, objective, optimizer, training)
    model, optimizer = fabric.setup(objective, optimizer)
    model.train()
    steps = training.objective.total_steps
    for step in range(first, steps):
        torch.manual_seed(training.seed * 1_000_003 + step)
        share = warmup_cosine(
            step, steps, end=training.end_learning_rate / training.learning_rate, warmup=training.warmup
        )
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * share
        losses = model(sampler.draw(step, training.batch), step)
        fabric.backward(losses["total"])
        fabric.clip_gradients(model, optimizer, max_norm=training.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.finish_step(step)
        if (step + 1) % training.checkpoint_every == 0 or step + 1 == steps:
            _save(folder / CHECKPOINT, step + 1, objective, optimizer, training)
        on_step(step, losses)
    return objective


def _optimizer(objective: Objective, training: Pretraining) -> AdamW:
    """AdamW; no weight decay on one-dimensional parameters and on the contrast's scale."""
    trained = [p for p in objective.parameters() if p.requires_grad]
    return AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": training.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=training.learning_rate,
        betas=training.betas,
    )


def _save(path: Path, step: int, objective: Objective, optimizer: AdamW, training: Pretraining) -> None:
    tensors = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"step": str(step), "training": json.dumps(asdict(training), sort_keys=True)}
    with write_atomically(path, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _resume(path: Path, objective: Objective, optimizer: AdamW, training: Pretraining) -> int:
    """Fill network and optimizer from a checkpoint, if there is one; the step to go on with."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if metadata["training"] != json.dumps(asdict(training), sort_keys=True):
        raise InputError(
            f"{path.parent.name}/{path.name} belongs to a run with other settings; give another output folder, "
            "or delete it to start again."
        )
    tensors = load_file(path)
    prefix = "objective."
    objective.load_state_dict({n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, field = name.split(".", 2)
            state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return int(metadata["step"])

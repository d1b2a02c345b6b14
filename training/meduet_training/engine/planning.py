"""The plan of a run before it starts: parameters, operations, memory, time and disk space.

`cost.py` counts the memory. The time of a step is measured on this machine with few rows and scaled, so it
does not include waiting for data and for other processes. A run that does not fit gives a warning.
"""

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from rich.table import Table
from torch import nn

from meduet_training.data.sources.step_batches import Shard
from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.engine.cost import (
    FEWEST_ROWS,
    Weights,
    count_activations,
    count_operations,
    count_weights,
    rows_of,
)
from meduet_training.runtime.fabric import Hardware, apply_hardware_options
from meduet_training.runtime.optimizer import adamw
from napari_meduet.errors import InputError
from napari_meduet.models.devices import choose_device
from napari_meduet.pipelines.common.memory import free_bytes

FLOAT_BYTES = 4  # weights, gradients and moments are fp32 in every precision
MOMENTS = 2  # AdamW has two for each trained value, and one value for each tensor
ROWS_ON_GPU = 8  # rows of a timed step; with fewer rows a GPU would be idle
TIMED_STEPS = 3
LONG_ENOUGH_S = 30.0  # no further step is timed after this time; at least two are
LOG_BYTES = 1_500  # of one logged step, in log.jsonl and for TensorBoard
LOGGED_EVERY = 20  # steps
PANEL_BYTES = 1_000_000  # of one validation
GIB, GIGA = 2**30, 1e9


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device with one strategy, with or without recomputed activations."""

    strategy: str
    recompute: bool
    weights: int
    teacher: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.teacher + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Measured duration of a step on this machine, in seconds.

    Attributes:
        gradient_s: forward and backward pass of `rows` rows.
        update_s: gradient clipping, optimizer and teacher.
    """

    rows: int
    gradient_s: float
    update_s: float

    def scaled(self, rows: int) -> float:
        """Return the estimated seconds of a step of `rows` rows."""
        return self.gradient_s * rows / self.rows + self.update_s


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs.

    Attributes:
        operations: operations of a step, summed over all processes.
        memory: memory of each device, first as configured, then with other options.
        memory_free: free bytes of this machine's device.
        step_time: measured time; None if the run does not fit on this machine.
        step_s: seconds of a step if every process has a device like that of this machine.
        disk: bytes of checkpoints, cache and logs.
    """

    training: TrainingConfig
    hardware: Hardware
    device: str
    num_processes: int
    weights: Weights
    operations: int
    memory: tuple[Memory, ...]
    memory_free: int
    step_time: StepTime | None
    disk: dict[str, int]
    disk_free: int

    @property
    def rows(self) -> int:
        """Rows of one forward pass on each device."""
        return self.training.batch // (self.num_processes * self.hardware.accumulate)

    @property
    def step_s(self) -> float | None:
        if self.step_time is None:
            return None
        return self.step_time.scaled(self.rows * self.hardware.accumulate)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what does not fit, and what would help."""
        found = []
        needed = self.memory[0].total
        if needed > self.memory_free:
            found.append(
                f"A step needs {needed / GIB:.1f} GiB of memory and {self.memory_free / GIB:.1f} GiB are "
                f"free: {self._remedy(self.memory_free)}"
            )
        written = sum(each for name, each in self.disk.items() if name != "cache, there already")
        if written > self.disk_free:
            found.append(
                f"The run writes {written / GIB:.1f} GiB and {self.disk_free / GIB:.1f} GiB of disk are "
                "free: make room, or keep fewer checkpoints."
            )
        return tuple(found)

    def _remedy(self, free: int) -> str:
        for other in self.memory[1:]:
            if other.total <= free:
                return f"with {_named(other)} it is {other.total / GIB:.1f} GiB."
        held = self.memory[0].total - self.memory[0].activations
        if held > free:
            return "its weights alone do not fit; choose a smaller preset, or use FSDP with more devices."
        return "raise hardware.accumulate, or choose a smaller batch."


def plan_run(
    training: TrainingConfig,
    hardware: Hardware,
    options: TrainerOptions,
    folder: Path,
    *,
    num_processes: int = 1,
    cache: Path | None = None,
) -> Plan:
    """Return what a run needs. A few steps are computed, and nothing is written.

    Args:
        folder: folder of the run; it need not exist.
        num_processes: number of processes that share each batch.
        cache: existing folder or file of latents.

    Raises:
        InputError: this machine has no such device, or the batch cannot be split.
    """
    share = Shard(num_ranks=num_processes, accumulate=hardware.accumulate)
    try:
        rows = share.rows(training.batch, in_pairs=bool(training.objective.pairing))
    except ValueError as error:
        raise InputError(str(error)) from error
    device = _device(hardware)
    bf16 = _is_bf16(hardware, device)
    weights = count_weights(training)
    activations = {
        recompute: count_activations(training, rows, bf16=bf16, recompute=recompute)
        for recompute in (False, True)
    }
    ways = list(product(("ddp", "fsdp") if num_processes > 1 else ("ddp",), (False, True)))
    ways.sort(key=lambda way: way != (hardware.strategy, hardware.recompute))  # as configured, then others
    memory = tuple(
        memory_of(weights, activations[recompute], strategy, recompute, num_processes)
        for strategy, recompute in ways
    )
    memory_free = _free(device)
    alone = memory_of(weights, activations[hardware.recompute], "ddp", hardware.recompute, 1)
    fits = alone.total - alone.activations < 0.8 * memory_free
    checkpoint = checkpoint_bytes(weights)
    steps = training.total_steps
    return Plan(
        training=training,
        hardware=hardware,
        device=_device_name(device),
        num_processes=num_processes,
        weights=weights,
        operations=count_operations(training, training.batch),
        memory=memory,
        memory_free=memory_free,
        step_time=time_step(training, hardware, device, bf16=bf16) if fits else None,
        disk={
            f"{options.keep} checkpoints, and one being written": (options.keep + 1) * checkpoint,
            "logs and panels, about": steps // LOGGED_EVERY * LOG_BYTES
            + sum(options.validates_after(done, steps) for done in range(1, steps + 1)) * PANEL_BYTES,
        }
        | ({"cache, there already": _size(cache)} if cache else {}),
        disk_free=shutil.disk_usage(_existing(folder)).free,
    )


def memory_of(
    weights: Weights, activations: int, strategy: str, recompute: bool, num_processes: int
) -> Memory:
    """Return the bytes on one device.

    With `fsdp` each device holds a shard of every weight, gradient and moment, and the weights that are
    gathered while they are used.
    """
    parts = num_processes if strategy == "fsdp" else 1
    gathered = weights.unsharded if parts > 1 else 0
    kept = weights.trained + weights.fixed
    return Memory(
        strategy=strategy,
        recompute=recompute,
        weights=FLOAT_BYTES * (_part(kept, parts) + weights.buffers + gathered),
        teacher=FLOAT_BYTES * _part(weights.teacher, parts),
        gradients=FLOAT_BYTES * _part(weights.trained, parts),
        optimizer=FLOAT_BYTES * (MOMENTS * _part(weights.trained, parts) + weights.trained_tensors),
        activations=activations,
    )


def checkpoint_bytes(weights: Weights) -> int:
    """Return the bytes of one checkpoint: weights, teacher, and the moments of the optimizer."""
    network = weights.trained + weights.teacher + weights.fixed
    return FLOAT_BYTES * (network + MOMENTS * weights.trained + weights.trained_tensors)


def time_step(training: TrainingConfig, hardware: Hardware, device: torch.device, *, bf16: bool) -> StepTime:
    """Return the median time of a few steps with rows of noise on this device, without the first step."""
    rows = FEWEST_ROWS if device.type == "cpu" else ROWS_ON_GPU
    with torch.random.fork_rng(devices=[]):
        objective = cast(Any, training.objective).build(cast(Any, training.network)).to(device)
    apply_hardware_options(objective, hardware)
    optimizer = adamw(
        objective,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        betas=training.betas,
    )
    batch = {name: field.to(device) for name, field in rows_of(training, rows).items()}
    last = training.total_steps - 1  # every loss has begun

    def gradient() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            total = objective(batch, last)["total"]
        total.backward()

    def update() -> None:
        nn.utils.clip_grad_norm_(objective.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        cast(Any, objective).finish_step(last)

    taken, began = [], time.perf_counter()
    while len(taken) < 2 or (len(taken) <= TIMED_STEPS and time.perf_counter() - began < LONG_ENOUGH_S):
        taken.append((_seconds(gradient, device), _seconds(update, device)))
    gradients, updates = zip(*taken[1:], strict=True)
    return StepTime(rows=rows, gradient_s=statistics.median(gradients), update_s=statistics.median(updates))


def plan_table(plan: Plan) -> Table:
    """Return the plan as a table."""
    table = Table(title="What this run needs", title_justify="left")
    table.add_column()
    for number, memory in enumerate(plan.memory):
        name = _named(memory)
        table.add_column(f"as configured ({name})" if number == 0 else name, justify="right")
    weights = plan.weights
    table.add_row("parameters, trained", f"{weights.trained / 1e6:.2f} M")
    table.add_row("parameters, teacher", f"{weights.teacher / 1e6:.2f} M")
    table.add_row(f"operations of a step of {plan.training.batch}", f"{plan.operations / GIGA:,.0f} G")
    table.add_section()
    for part in ("weights", "teacher", "gradients", "optimizer", "activations", "total"):
        label = f"memory, {part}" + (f" of {plan.rows} rows" if part == "activations" else "")
        table.add_row(label, *(_in_gib(getattr(memory, part)) for memory in plan.memory))
    free = _in_gib(plan.memory_free)
    table.add_row(f"memory that is free ({plan.device})", free)
    table.add_section()
    if plan.step_time is None or plan.step_s is None:
        table.add_row("a step", "not measured: it does not fit here")
    else:
        rate = plan.operations / plan.num_processes / plan.step_s / GIGA
        table.add_row(
            f"a step, scaled from {plan.step_time.rows} rows here",
            f"{plan.step_s:.3g} s ({rate:,.0f} GFLOP/s)",
        )
        table.add_row(
            f"{plan.training.total_steps:,} steps",
            f"{plan.step_s * plan.training.total_steps / 3600:,.1f} hours",
        )
    table.add_section()
    for name, each in plan.disk.items():
        table.add_row(f"disk, {name}", _in_gib(each))
    table.add_row("disk that is free", _in_gib(plan.disk_free))
    return table


def _named(memory: Memory) -> str:
    return memory.strategy + (", recompute" if memory.recompute else "")


def _in_gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:,.2f} GiB"


def _part(numbers: int, parts: int) -> int:
    return -(-numbers // parts)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _device(hardware: Hardware) -> torch.device:
    kind = hardware.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    return choose_device(kind)


def _is_bf16(hardware: Hardware, device: torch.device) -> bool:
    if hardware.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return hardware.precision == "bf16"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_bytes()


def _existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(each for each in (folder, *folder.resolve().parents) if each.exists())


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))

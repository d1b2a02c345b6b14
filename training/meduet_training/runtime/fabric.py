"""One Fabric for every training: which device, which precision, which processes.

Processes are started from outside, by torchrun, by srun or by `meduet-pretrain jobs`; this file reads from
the environment what they are told, and chooses how they share a network.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from meduet_training.runtime.messages import known_to_all
from meduet_training.runtime.rendezvous import PATIENCE_S, check_meeting_point
from napari_meduet.core.transformer import Block, Transformer
from napari_meduet.errors import InputError
from napari_meduet.models.devices import choose_device

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """How a training is computed. What is learnt does not depend on it, but for rounding.

    Attributes:
        precision: of products; weights, losses and the optimizer are always fp32. `auto` is bf16 where the
            device is fast at it.
        strategy: of several processes: `ddp`, each holds all weights, or `fsdp`, each holds a part of them.
        accumulate: parts of a batch that pass the network one after the other, so that less memory is needed.
        compile: let torch.compile fuse the objective; the first steps take minutes.
        recompute: keep no activations inside transformer blocks, compute them again for the gradient.
        workers: processes that read data ahead, for each training process; 0 reads in the training itself.
        timeout_s: how long a process waits for the others before it gives the job up.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    accumulate: int = 1
    compile: bool = False
    recompute: bool = False
    workers: int = 2
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError(f"accumulate counts the parts of a batch, at least 1; got {self.accumulate}.")
        if self.workers < 0:
            raise ValueError(f"workers counts processes, 0 or more; got {self.workers}.")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is a number of seconds above 0; got {self.timeout_s}.")


def make_fabric(device: Literal["auto", "cpu", "cuda"] | str = "auto") -> Fabric:
    """A launched Fabric of this process alone, in the best precision of the device.

    Raises:
        InputError: this machine has no such device.
    """
    kind = _kind(device)
    fabric = Fabric(
        accelerator=kind, devices=1, precision=_precision("auto", kind), plugins=[LightningEnvironment()]
    )
    fabric.launch()
    return fabric


def fit_to_hardware(objective: nn.Module, hardware: Hardware) -> None:
    """Let it keep activations and be compiled as the hardware says; before Fabric sets it up."""
    for module in objective.modules():
        if isinstance(module, Transformer):
            module.recomputes = hardware.recompute
    if hardware.compile:
        objective.compile()


def refuse_fsdp(hardware: Hardware, what: str) -> None:
    """Refuse to cut a network that only works whole.

    Raises:
        InputError: the hardware asks for it.
    """
    if hardware.strategy == "fsdp":
        raise InputError(f"{what} cannot be cut by fsdp; use ddp, or recompute where memory is short.")


def join_fabric(hardware: Hardware) -> Fabric:
    """A launched Fabric of all processes of the job, which wait here for each other.

    Raises:
        InputError: this machine lacks the device, or the processes did not find each other.
    """
    # Of depthwise convolutions, whose strides mean nothing; it costs a copy of a few kilobytes.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    kind = _kind(hardware.device)
    environment, on_this_node, num_nodes = _started_by(os.environ)
    num_processes = on_this_node * num_nodes
    if kind == "cuda" and on_this_node > torch.cuda.device_count():
        raise InputError(
            f"{on_this_node} processes were started on this machine, but it has {torch.cuda.device_count()} "
            "GPUs; start one process for each GPU."
        )
    fabric = Fabric(
        accelerator=kind,
        devices=on_this_node,
        num_nodes=num_nodes,
        strategy=_strategy(hardware, num_processes),
        precision=_precision(hardware.precision, kind),
        plugins=[environment],
    )
    if num_processes > 1 and not torch.distributed.is_initialized():
        check_meeting_point(
            environment.main_address,
            environment.main_port,
            environment.global_rank(),
            patience_s=min(PATIENCE_S, hardware.timeout_s),
        )
    fabric.launch()
    return fabric


def shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Cut every parameter into a part for each process (FSDP2); blocks are put together as they are used."""
    across = mesh["data_parallel"]
    for module in network.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=across)
    fully_shard(network, mesh=across)
    return network


def decided_by_first(fabric: Fabric, decide: Callable[[], T]) -> T:
    """What the first process finds, on all of them; what it refuses, all refuse.

    Raises:
        InputError: as the first process raised it, on all.
    """
    result: T | None = None
    refusal = ""
    if fabric.is_global_zero:
        try:
            result = decide()
        except InputError as error:
            refusal = str(error) or "refused"
    result, refusal = fabric.broadcast((result, refusal))
    with known_to_all():
        if refusal:
            raise InputError(refusal)
    return cast(T, result)


def whole_copy(fabric: Fabric, network: nn.Module, build: Callable[[], nn.Module]) -> nn.Module | None:
    """The network with all its weights, on the first process; None on the others.

    The network itself where each process holds it whole. To be called on all processes together.
    """
    if not isinstance(network, FSDPModule):
        return network if fabric.is_global_zero else None
    weights = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not fabric.is_global_zero:
        return None
    copy = build()
    copy.load_state_dict(weights)
    return copy.to(fabric.device)


def _started_by(variables: "os._Environ[str] | dict[str, str]") -> tuple[ClusterEnvironment, int, int]:
    """Who started this process; processes on this machine; machines."""
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= variables.keys():  # torchrun, and jobs/ranks.py
        world = int(variables["WORLD_SIZE"])
        here = int(variables.get("LOCAL_WORLD_SIZE", world))
        return TorchElasticEnvironment(), here, world // here
    if int(variables.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_ID" in variables:  # srun
        nodes = int(variables.get("SLURM_NNODES", 1))
        return SLURMEnvironment(), int(variables["SLURM_NTASKS"]) // nodes, nodes
    return LightningEnvironment(), 1, 1


def _strategy(hardware: Hardware, num_processes: int) -> Strategy | str:
    timeout = timedelta(seconds=hardware.timeout_s)
    if num_processes == 1:
        return "auto"
    if hardware.strategy == "fsdp":
        return ModelParallelStrategy(
            shard, data_parallel_size=num_processes, tensor_parallel_size=1, timeout=timeout
        )
    return DDPStrategy(timeout=timeout, gradient_as_bucket_view=True)


def _kind(device: str) -> str:
    if device == "auto":  # never Apple's MPS, on which no training was tried
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return choose_device(device).type


def _precision(precision: str, kind: str) -> Literal["bf16-mixed", "32-true"]:
    """bf16 on processors without the instructions for it is slower than fp32 (docs/benchmarks.md)."""
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return "bf16-mixed" if precision == "bf16" else "32-true"

"""The Lightning Fabric of every training: device, precision and processes.

torchrun, srun or `meduet-pretrain jobs` starts the processes. This file reads the environment variables that
the launcher sets, and chooses the strategy by which the processes share a network.
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
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy
from lightning_fabric.strategies import Strategy as FabricStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from meduet_training.runtime.choices import Device, Precision, Strategy
from meduet_training.runtime.messages import report_on_rank_zero
from meduet_training.runtime.rendezvous import TIMEOUT_S, check_rendezvous
from napari_meduet.core.transformer import Block, Transformer
from napari_meduet.errors import InputError
from napari_meduet.models.devices import choose_device

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """How a training is computed. The result does not depend on these options, except for rounding.

    Attributes:
        precision: precision of matrix products; weights, losses and the optimizer are always fp32. `auto`
            chooses bf16 on CUDA devices that support it, and fp32 elsewhere.
        strategy: how several processes share a network: with `ddp` each holds all weights, with `fsdp` each
            holds a shard of them.
        accumulate: number of parts into which a batch is split; their gradients are accumulated, which saves
            memory.
        compile: compile the objective with torch.compile; the first steps then take minutes.
        recompute: do not keep activations inside transformer blocks; compute them again in the backward pass.
        workers: number of data loading processes for each training process; 0 loads in the training process.
        timeout_s: seconds that a process waits for the others before it ends the job.
    """

    device: Device = "auto"
    precision: Precision = "auto"
    strategy: Strategy = "ddp"
    accumulate: int = 1
    compile: bool = False
    recompute: bool = False
    workers: int = 2
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError(
                f"accumulate is the number of parts of a batch, at least 1; got {self.accumulate}."
            )
        if self.workers < 0:
            raise ValueError(f"workers is a number of processes, 0 or more; got {self.workers}.")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is a number of seconds above 0; got {self.timeout_s}.")


def make_fabric(device: str = "auto") -> Fabric:
    """Return a launched Fabric of this process alone, with the default precision of the device.

    Raises:
        InputError: this machine has no such device.
    """
    kind = _kind(device)
    fabric = Fabric(
        accelerator=kind, devices=1, precision=_precision("auto", kind), plugins=[LightningEnvironment()]
    )
    fabric.launch()
    return fabric


def apply_hardware_options(objective: nn.Module, hardware: Hardware) -> None:
    """Apply `recompute` and `compile` to an objective, before Fabric sets it up."""
    for module in objective.modules():
        if isinstance(module, Transformer):
            module.recomputes = hardware.recompute
    if hardware.compile:
        objective.compile()


def refuse_fsdp(hardware: Hardware, what: str) -> None:
    """Refuse FSDP for a network that cannot be sharded.

    Args:
        what: name of the network, as the subject of the message.

    Raises:
        InputError: the strategy is fsdp.
    """
    if hardware.strategy == "fsdp":
        raise InputError(f"{what} cannot be sharded by fsdp. Use ddp; set recompute if memory is short.")


def launch_fabric(hardware: Hardware) -> Fabric:
    """Return a launched Fabric of all processes of the job. The processes wait here for each other.

    Raises:
        InputError: this machine lacks the device, or the processes could not reach each other.
    """
    # Depthwise convolutions cause this warning; the copy that it reports is a few kilobytes.
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
        check_rendezvous(
            environment.main_address,
            environment.main_port,
            environment.global_rank(),
            timeout_s=min(TIMEOUT_S, hardware.timeout_s),
        )
    fabric.launch()
    return fabric


def shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard every parameter over the processes (FSDP2); each block is gathered when it is used."""
    across = mesh["data_parallel"]
    for module in network.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=across)
    fully_shard(network, mesh=across)
    return network


def run_on_rank_zero(fabric: Fabric, decide: Callable[[], T]) -> T:
    """Call `decide` on rank 0 only, and return its result on all processes.

    Raises:
        InputError: rank 0 raised it; all processes raise it then.
    """
    result: T | None = None
    refusal = ""
    if fabric.is_global_zero:
        try:
            result = decide()
        except InputError as error:
            refusal = str(error) or "refused"
    result, refusal = fabric.broadcast((result, refusal))
    with report_on_rank_zero():
        if refusal:
            raise InputError(refusal)
    return cast(T, result)


def full_copy(fabric: Fabric, network: nn.Module, build: Callable[[], nn.Module]) -> nn.Module | None:
    """Return the network with all its weights on rank 0, and None on the other processes.

    Without FSDP this is the network itself. All processes must call this function together.
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
    """Return the environment of the launcher, the number of processes on this machine, and of machines."""
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= variables.keys():  # torchrun, and jobs/launcher.py
        world = int(variables["WORLD_SIZE"])
        here = int(variables.get("LOCAL_WORLD_SIZE", world))
        return TorchElasticEnvironment(), here, world // here
    if int(variables.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_ID" in variables:  # srun
        nodes = int(variables.get("SLURM_NNODES", 1))
        return SLURMEnvironment(), int(variables["SLURM_NTASKS"]) // nodes, nodes
    return LightningEnvironment(), 1, 1


def _strategy(hardware: Hardware, num_processes: int) -> FabricStrategy | str:
    timeout = timedelta(seconds=hardware.timeout_s)
    if num_processes == 1:
        return "auto"
    if hardware.strategy == "fsdp":
        return ModelParallelStrategy(
            shard, data_parallel_size=num_processes, tensor_parallel_size=1, timeout=timeout
        )
    return DDPStrategy(timeout=timeout, gradient_as_bucket_view=True)


def _kind(device: str) -> str:
    if device == "auto":  # never Apple's MPS, on which no training was tested
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return choose_device(device).type


def _precision(precision: str, kind: str) -> Literal["bf16-mixed", "32-true"]:
    """Choose the precision. On CPUs without bf16 instructions, bf16 is slower (docs/benchmarks.md)."""
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return "bf16-mixed" if precision == "bf16" else "32-true"

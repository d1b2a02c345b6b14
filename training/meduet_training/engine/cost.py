"""Parameters, operations and memory of a training step, counted without computing it.

The objective is built with tensors that have shapes but no values. Operations are those of the matrix
products and convolutions in the forward and backward pass. Activations are the largest number of bytes that
exist at one time, in the precision of the run. `planning.py` makes a table of these numbers.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from meduet_training.data.sources.protocol import generator_of
from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.core.transformer import Block, Transformer

FEWEST_ROWS = 2  # a pair


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Numbers of values in an objective.

    Attributes:
        trained: values in parameters with a gradient; `trained_tensors` is the number of these parameters.
        teacher: values in parameters of the teacher.
        fixed: values in other parameters without a gradient.
        buffers: values in constants, which are not saved.
        unsharded: values that FSDP gathers at one time: two blocks, and all parameters outside of blocks.
    """

    trained: int
    trained_tensors: int
    teacher: int
    fixed: int
    buffers: int
    unsharded: int


def count_weights(training: TrainingConfig) -> Weights:
    """Return the numbers of values in the objective of a training."""
    objective = _without_numbers(training)
    trained = [each.numel() for each in objective.parameters() if each.requires_grad]
    teacher = [each.numel() for name, each in objective.named_parameters() if name.startswith("teacher.")]
    every = sum(each.numel() for each in objective.parameters())
    blocks = [
        sum(each.numel() for each in module.parameters())
        for module in objective.modules()
        if isinstance(module, Block)
    ]
    return Weights(
        trained=sum(trained),
        trained_tensors=len(trained),
        teacher=sum(teacher),
        fixed=every - sum(trained) - sum(teacher),
        buffers=sum(each.numel() for each in objective.buffers()),
        unsharded=every - sum(blocks) + 2 * max(blocks, default=0),
    )


def count_operations(training: TrainingConfig, rows: int) -> int:
    """Return the multiplications and additions of one forward and backward pass of `rows` rows."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _products_of_convolution_backward}
    )
    # The counter knows only the products of this attention kernel.
    with _as_if_real(training, FEWEST_ROWS) as (objective, batch), sdpa_kernel(SDPBackend.MATH), counter:
        objective(batch, training.total_steps - 1)["total"].backward()
    return counter.get_total_flops() * rows // FEWEST_ROWS


def count_activations(training: TrainingConfig, rows: int, *, bf16: bool, recompute: bool) -> int:
    """Return the peak bytes of activations in a forward and backward pass of `rows` rows."""
    with _as_if_real(training, rows) as (objective, batch):
        for module in objective.modules():
            if isinstance(module, Transformer):
                module.recomputes = recompute
        for parameter in objective.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_forget_gradient)
        with LiveBytes() as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                total = objective(batch, training.total_steps - 1)["total"]
            total.backward()
    return live.peak


def rows_of(training: TrainingConfig, rows: int = FEWEST_ROWS) -> dict[str, Tensor]:
    """Return a batch of noise with every field that the objective reads. Partners are neighbours."""
    network, generator = training.network, generator_of(training.seed)
    drawn = [training.objective.draw(cast(Any, network), generator) for _ in range(rows)]
    batch = {name: torch.stack([row[name] for row in drawn]) for name in drawn[0]}
    batch["latent"] = torch.randn(rows, *network.latent_shape, generator=generator)
    batch["domain"] = torch.zeros(rows, dtype=torch.int64)
    batch["partner"] = torch.arange(rows) ^ 1
    if isinstance(network, GeneratorConfig):
        batch["content"] = torch.randn(rows, network.content_width, generator=generator)
        batch["style"] = torch.randn(rows, network.style_width, generator=generator)
        shape = (rows, network.num_tokens, network.content_width)
        batch["spatial_content"] = torch.randn(shape, generator=generator)
    if getattr(training.objective, "aligns", False):
        batch["aligned_target"] = batch["style_reference"] = batch["latent"]
    return batch


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensor storages that exist while this mode is active, now and at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._end, storage.nbytes())

    def _end(self, num_bytes: int) -> None:
        self.live -= num_bytes


def _without_numbers(training: TrainingConfig) -> nn.Module:
    with torch.device("meta"):
        return cast(Any, training.objective).build(cast(Any, training.network))


@contextmanager
def _as_if_real(training: TrainingConfig, rows: int) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    """Yield the objective and a batch as fake tensors on the CPU; new tensors are fake too."""
    objective, few = _without_numbers(training), rows_of(training)
    with FakeTensorMode():
        for module in objective.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                empty = torch.empty(weight.shape)
                setattr(module, name, nn.Parameter(empty, requires_grad=weight.requires_grad))
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.empty(buffer.shape))
        yield (
            objective,
            {name: torch.empty(rows, *each.shape[1:], dtype=each.dtype) for name, each in few.items()},
        )


def _products_of_convolution_backward(
    gradient: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *arguments: Any, **_: Any
) -> int:
    """Return the operations of the backward pass of a convolution: those of a forward pass for each gradient.

    The count of torch ignores groups: it is too high by the number of channels for a depthwise convolution.

    Args:
        gradient, inputs, weight: shapes.
        arguments: other arguments of the operation, such as `transposed` and the mask of required gradients.
    """
    transposed, required = arguments[4], arguments[7]
    positions = (inputs if transposed else gradient)[2:]
    return 2 * inputs[0] * prod(positions) * prod(weight) * sum(required[:2])


def _forget_gradient(parameter: Tensor) -> None:
    parameter.grad = None

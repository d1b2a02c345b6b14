"""What a training step will take, counted without computing it: parameters, operations, memory.

The pretext is built where tensors have shapes and no numbers. Operations are those of the products in forward
and backward. Activations are the bytes that live at once between the two, in the precision of the run: every
storage is seen from the operation that makes it to its end.
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
    """Numbers that a pretext holds.

    Attributes:
        trained: parameters with a gradient; `trained_tensors` of them.
        teacher: parameters that follow the trained ones.
        fixed: parameters that stay as they are, such as classifiers that nothing asks.
        buffers: constants, made anew and never saved.
        unsharded: of all parameters those that FSDP puts together at once: two blocks, and what is in none.
    """

    trained: int
    trained_tensors: int
    teacher: int
    fixed: int
    buffers: int
    unsharded: int


def count_weights(training: TrainingConfig) -> Weights:
    """What the pretext of a training holds."""
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
    """Multiplications and additions of the products in one forward and backward of so many rows."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _products_of_convolution_backward}
    )
    # Of the kernels for attention this is the one whose products are counted.
    with _as_if_real(training, FEWEST_ROWS) as (objective, batch), sdpa_kernel(SDPBackend.MATH), counter:
        objective(batch, training.total_steps - 1)["total"].backward()
    return counter.get_total_flops() * rows // FEWEST_ROWS


def count_activations(training: TrainingConfig, rows: int, *, bf16: bool, recompute: bool) -> int:
    """Bytes that live at once, beside weights and gradients, in a forward and backward of so many rows."""
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
    """A batch of noise with every field that the pretext reads; partners lie side by side."""
    network, generator = training.network, generator_of(training.seed)
    drawn = [training.objective.draw(cast(Any, network), generator) for _ in range(rows)]
    batch = {name: torch.stack([row[name] for row in drawn]) for name in drawn[0]}
    batch["latent"] = torch.randn(rows, *network.latent_shape, generator=generator)
    batch["domain"] = torch.zeros(rows, dtype=torch.int64)
    batch["partner"] = torch.arange(rows) ^ 1
    if isinstance(network, GeneratorConfig):
        batch["content"] = torch.randn(rows, network.content_width, generator=generator)
        batch["style"] = torch.randn(rows, network.style_width, generator=generator)
        places = (rows, network.num_tokens, network.content_width)
        batch["spatial_content"] = torch.randn(places, generator=generator)
    if getattr(training.objective, "aligns", False):
        batch["aligned_target"] = batch["style_reference"] = batch["latent"]
    return batch


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are made while it is on, from their making to their end."""

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
    """The pretext and a batch that say they lie on the CPU, and everything made beside them likewise."""
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
    """As many as forward for each gradient that is wanted; torch's own count forgets groups, so that a
    depthwise convolution would cost as many times too much as it has channels.

    Args:
        gradient, inputs, weight: shapes.
        arguments: the operation's others; `transposed` and the mask of wanted gradients are among them.
    """
    transposed, wanted = arguments[4], arguments[7]
    places = (inputs if transposed else gradient)[2:]
    return 2 * inputs[0] * prod(places) * prod(weight) * sum(wanted[:2])


def _forget_gradient(parameter: Tensor) -> None:
    parameter.grad = None

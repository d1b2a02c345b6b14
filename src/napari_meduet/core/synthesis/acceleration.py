"""Faster evaluation of a generator: 8-bit integers, bfloat16 and compilation (specification, section 9).

Fused attention is always used. 8-bit integers are for CPUs. bfloat16 is for processors that multiply it
faster than float32: all current GPUs and a few CPUs. Compilation fuses the operations between the matrix
products and, on a GPU, replays an evaluation as one CUDA graph. It takes a minute, so it is useful for
hundreds of evaluations.
"""

import copy
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.options import Precision
from napari_meduet.core.quantisation import with_quantised_blocks
from napari_meduet.core.synthesis.generator import Generator


def accelerated(
    generator: Generator, precision: Precision = "float32", *, compiles: bool = False
) -> Generator:
    """Return a faster copy of the generator, or the generator itself; its weights are not changed.

    Args:
        precision: numeric precision of the matrix products; modulation and samplers always use float32.
        compiles: compile the network; ignored on a GPU without a compiler for torch (Triton).

    Raises:
        ValueError: this device or processor has no exact 8-bit integers.
    """
    device = generator.positions.device.type
    if precision == "int8":
        if device != "cpu":
            raise ValueError(f"Precision int8 works on the CPU only. Choose bfloat16 on {device}.")
        generator = with_quantised_blocks(generator)
    if precision != "bfloat16" and not compiles:
        return generator

    faster: Any = copy.copy(generator)  # same tensors, another `predict`
    predict: Any = generator.predict
    if compiles and (device == "cpu" or find_spec("triton") is not None):
        mode = "reduce-overhead" if device == "cuda" else "default"
        predict = torch.compile(predict, dynamic=False, mode=mode)

    def prediction(*inputs: Any) -> Float[Tensor, "B ..."]:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            predicted = predict(*inputs)
        return predicted.float().clone()  # the next replay of a CUDA graph overwrites its output

    faster.predict = prediction
    return faster

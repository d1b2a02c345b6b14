"""A generator made ready for the processor that it samples on (specification, section 9).

Attention is fused everywhere. 8-bit integers are for CPUs, bfloat16 for processors that multiply it faster
than 32 bits: every GPU of today and a few CPUs. Compiling joins what lies between the products and, on a GPU,
replays an evaluation as one CUDA graph; it takes a minute, so it pays where hundreds of evaluations follow.
"""

import copy
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from napari_meduet.core.quantisation import with_quantised_blocks
from napari_meduet.core.synthesis.generator import Generator

Precision = Literal["float32", "bfloat16", "int8"]


def accelerated(
    generator: Generator, precision: Precision = "float32", *, compiles: bool = False
) -> Generator:
    """The generator, or a faster one beside it; the weights given stay as they are.

    Args:
        precision: of the products in an evaluation; modulation and samplers stay in 32 bits.
        compiles: ignored on a GPU for which torch has no compiler (Triton).

    Raises:
        ValueError: 8-bit integers are asked for where they are not to be had.
    """
    device = generator.positions.device.type
    if precision == "int8":
        if device != "cpu":
            raise ValueError(f"Precision int8 is for the CPU; on {device} choose bfloat16.")
        generator = with_quantised_blocks(generator)
    if precision != "bfloat16" and not compiles:
        return generator

    faster: Any = copy.copy(generator)  # the same tensors under another `predict`
    predict: Any = generator.predict
    if compiles and (device == "cpu" or find_spec("triton") is not None):
        mode = "reduce-overhead" if device == "cuda" else "default"
        predict = torch.compile(predict, dynamic=False, mode=mode)

    def prediction(*inputs: Any) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            found = predict(*inputs)
        return found.float().clone()  # the next replay of a graph writes over what it returned

    faster.predict = prediction
    return faster

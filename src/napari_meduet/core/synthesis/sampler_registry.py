"""The samplers and the facts about each of them: one record per sampler (specification, section 9).

Requests, commands, forms and the evaluation read this table. This module does not import torch, so menus and
`--help` open at once. `samplers.py` and `diffusion.py` hold the functions; `sampling.py` calls them by name.
"""

from dataclasses import dataclass
from typing import Literal

SamplerName = Literal["multistep", "heun", "euler", "em", "ddim", "ddpm"]
GeneratorKind = Literal["SiT", "DiT"]


@dataclass(frozen=True, kw_only=True)
class SamplerRecord:
    """Facts about one sampler.

    Attributes:
        label: name in a menu.
        generator: kind of generator that the sampler works with.
        order: order of convergence, of the path for a solver, of the distribution for a stochastic sampler.
        evaluations_per_step: predictions of the network that each step needs, without guidance.
        is_stochastic: whether each step adds fresh noise.
        default_steps: number of steps if none is given.
    """

    label: str
    generator: GeneratorKind
    order: int
    evaluations_per_step: int = 1
    is_stochastic: bool = False
    default_steps: int


# The first sampler of each kind of generator is its default. Default steps of the solvers for SiT cost 72 to
# 90 evaluations with guidance; of these, multistep is closest to a fine solution ("Whole samples of the
# embedded generator" in docs/benchmarks.md). em and ddpm: Table 10. ddim: Song et al. 2021, Table 1.
SAMPLERS: dict[SamplerName, SamplerRecord] = {
    "multistep": SamplerRecord(label="Multistep", generator="SiT", order=3, default_steps=24),
    "heun": SamplerRecord(label="Heun", generator="SiT", order=2, evaluations_per_step=2, default_steps=12),
    "euler": SamplerRecord(label="Euler", generator="SiT", order=1, default_steps=30),
    "em": SamplerRecord(
        label="Euler–Maruyama", generator="SiT", order=1, is_stochastic=True, default_steps=250
    ),
    "ddim": SamplerRecord(label="DDIM", generator="DiT", order=1, default_steps=50),
    "ddpm": SamplerRecord(label="DDPM", generator="DiT", order=1, is_stochastic=True, default_steps=250),
}


def generator_kind(prediction: str) -> GeneratorKind:
    """Return the kind of a generator from what it predicts: noise (DiT), velocity or data (SiT)."""
    return "DiT" if prediction == "noise" else "SiT"


def samplers_for(kind: GeneratorKind) -> dict[SamplerName, SamplerRecord]:
    """Return the samplers that work with this kind of generator, the default first.

    Examples:
        >>> list(samplers_for("DiT"))
        ['ddim', 'ddpm']
    """
    return {name: record for name, record in SAMPLERS.items() if record.generator == kind}


def default_sampler(kind: GeneratorKind) -> SamplerName:
    """Return the default sampler of this kind of generator."""
    return next(iter(samplers_for(kind)))

"""What a pretraining learns from: volumes are chosen first, cheaply and everywhere alike, and read later.

Every random number of a step comes from the run's seed, the step and the row, so a step is the same batch
whenever it is drawn, whoever reads it, and however many processes share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor


class Purpose(IntEnum):
    """What a row's random numbers are for: each purpose has a stream of its own."""

    choosing = 0  # which volume, which place
    reading = 1  # the posterior's noise, flips
    pretext = 2  # the mask, the noise that the network must remove


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One volume of a batch, chosen but not yet read. Sources add where it lies."""

    domain: int  # index into the source's domains; -1: unlabelled
    seed: int  # of this row's random numbers
    sample: str  # names the scan in logs: a hash, never a name or a path

    def generator(self, purpose: Purpose) -> Generator:
        return generator_of(self.seed, purpose)


ChoiceT = TypeVar("ChoiceT", bound=Choice)


class BatchSource(Protocol[ChoiceT]):
    """A cohort, as latents or voxels, from which the batch of any step can be drawn."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Their names; volumes are labelled with the index."""
        ...

    @property
    def sha256(self) -> str:
        """Identity of the data: a run goes on only with the same."""
        ...

    @property
    def num_scans(self) -> Mapping[str, int]:
        """How many scans each domain has."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels and voxels of one volume of a batch."""
        ...

    def statistics(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Mean and standard deviation of each channel over the body, by which `read` standardises."""
        ...

    def choose(self, step: int, count: int) -> list[ChoiceT]:
        """All rows of a step, the same on every process; quick, for no data is read. Step -1 is allowed."""
        ...

    def read(self, choices: Sequence[ChoiceT]) -> dict[str, Tensor]:
        """The fields of `Batch` (objective.py) that are data, standardised, on the CPU; a row a choice.

        What a row holds depends on its choice alone, not on the rows beside it.
        """
        ...


def seed_of(*numbers: int) -> int:
    """A seed for each sequence of numbers from 0 up. 32 bits: torch's CPU generator takes no more."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def generator_of(*numbers: int) -> Generator:
    """Random numbers of their own for each sequence of numbers from 0 up."""
    return torch.Generator().manual_seed(seed_of(*numbers))


def row_seed(seed: int, step: int, row: int) -> int:
    """The seed of a row of a run's step; step -1 draws what a run needs before its first."""
    return seed_of(seed, step + 1, row)

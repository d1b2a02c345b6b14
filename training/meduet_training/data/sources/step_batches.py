"""The batches of a run, one for each forward pass: chosen for all processes together, read by one of them.

A step's batch is chosen whole, paired whole, and then cut: into the parts of an accumulated gradient, and
each part into the shares of the processes. So R processes with a share of B / R rows see the very rows, pairs
and masks that one process sees with B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from meduet_training.data.sources.protocol import BatchSource, Choice, Purpose, generator_of, row_seed
from napari_meduet.core.analysis.classifier import ClassifierConfig
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.core.demixing import Pairing, draw_pairs
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Batch
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig

NetworkConfig = MeDUETConfig | ResidualUNetConfig | GeneratorConfig | UNETRConfig | ClassifierConfig


@runtime_checkable
class PretextConfig(Protocol):
    """The objective of a training: MeDUET's, another pretext (specification, section 11), a generator's
    (section 9), or that of a task with few labels (section 10)."""

    @property
    def total_steps(self) -> int: ...

    @property
    def pairing(self) -> Pairing | None:
        """How the volumes of a batch are paired; None: each is alone."""
        ...

    def draw(self, network: Any, generator: Generator) -> dict[str, Tensor]:
        """The random numbers of one row: fields of the batch, without the batch axis."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of every step's batch this process computes.

    Attributes:
        accumulate: parts of a batch that go through the network one after the other, for one step.
    """

    rank: int = 0
    num_ranks: int = 1
    accumulate: int = 1

    def rows(self, batch: int, *, in_pairs: bool) -> int:
        """How many rows of a step's batch one process computes at a time.

        Raises:
            ValueError: there are not as many for all, or no whole pairs.
        """
        parts = self.num_ranks * self.accumulate
        unit = 2 * parts if in_pairs else parts
        if batch % unit:
            raise ValueError(
                f"A batch of {batch} does not split {'into pairs ' if in_pairs else ''}for {self.num_ranks} "
                f"processes x {self.accumulate} parts; make it a multiple of {unit}."
            )
        return batch // parts


class StepBatches(Dataset[Batch]):
    """Item `step * accumulate + part` is this process's share of that part of that step.

    Args:
        batch: rows of a step, over all processes and parts.
    """

    def __init__(
        self,
        source: BatchSource[Any],
        pretext: PretextConfig,
        network: NetworkConfig,
        *,
        batch: int,
        seed: int,
        share: Shard = Shard(),
    ) -> None:
        self.source, self.pretext, self.network = source, pretext, network
        self.batch, self.seed, self.share = batch, seed, share
        self.rows = share.rows(batch, in_pairs=bool(pretext.pairing))

    def __len__(self) -> int:
        return self.pretext.total_steps * self.share.accumulate

    def __getitem__(self, index: int) -> Batch:
        step, part = divmod(index, self.share.accumulate)
        whole = self.choose(step)
        first = (part * self.share.num_ranks + self.share.rank) * self.rows
        mine = whole[first : first + self.rows]
        batch = self.source.read(mine)
        drawn = [self.pretext.draw(self.network, choice.generator(Purpose.pretext)) for choice in mine]
        batch |= {name: torch.stack([row[name] for row in drawn]) for name in drawn[0]}
        if self.pretext.pairing:
            batch["partner"] = torch.arange(self.rows) ^ 1  # rows 2k and 2k + 1 are partners
        batch["labelled_fraction"] = (_domains(whole) >= 0).float().mean()
        return cast(Batch, batch)

    def choose(self, step: int) -> Sequence[Choice]:
        """All rows of a step; partners lie side by side."""
        chosen = self.source.choose(step, self.batch)
        if not self.pretext.pairing:
            return chosen
        generator = generator_of(row_seed(self.seed, step, self.batch))  # the number after the last row
        partner = draw_pairs(_domains(chosen), self.pretext.pairing, generator).tolist()
        return [chosen[row] for i, j in enumerate(partner) if i < j for row in (i, j)]


def _domains(choices: Sequence[Choice]) -> Tensor:
    return torch.tensor([choice.domain for choice in choices])

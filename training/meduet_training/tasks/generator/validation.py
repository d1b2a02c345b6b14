"""Validation of a generator in training: its loss on held-out scans, and panels of samples.

The loss is that of the training with fixed times and fixed noise, so only learning changes it. A panel shows
samples with every content in every style from the same noise. Both use the averaged weights, which the
sampler will use, and draw no random numbers of the training. `engine/validator.py` holds the protocol.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meduet_training.data.sources.factors import FactorChoice, FactorSource
from meduet_training.data.sources.protocol import Purpose, generator_of
from meduet_training.engine.validator import NoEarlyStopping
from meduet_training.evaluation.factors.validation import middle_slices
from meduet_training.tasks.generator.sample_panel import SampleGrid, sample_panel
from napari_meduet.core.synthesis.generator import Conditions, Generator
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity
from napari_meduet.core.synthesis.objective import GenerationBatch, GenerationObjective, generation_loss
from napari_meduet.core.synthesis.sampler_registry import default_sampler, generator_kind
from napari_meduet.core.synthesis.sampling import sampling_steps, sampling_times
from napari_meduet.models.model import Model
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import IntensityProfile
from napari_meduet.volumes.volume import Modality

NUM_CROPS = 32  # crops for the loss
CROPS_AT_ONCE = 8
NUM_SHOWN = 3  # contents and styles in a panel
SAMPLER_STEPS = 16
NOTE = "Crops of held-out scans, from which the generator does not learn."


class GeneratorValidation(NoEarlyStopping):
    """Validator of a generator on held-out crops.

    Args:
        source: draws the crops of step -1, which are the same in every run with its seed.
        model: the model whose tokenizer decodes the samples.
    """

    def __init__(self, source: FactorSource, model: Model) -> None:
        self._source, self._model = source, model
        self._choices = source.choose(-1, NUM_CROPS)

    @property
    def note(self) -> str:
        return NOTE

    def counts(self) -> dict[str, int]:
        """Return the number of crops of each domain."""
        return dict(sorted(Counter(self._source.domains[each.domain] for each in self._choices).items()))

    def can_measure(self, objective: nn.Module) -> bool:
        return isinstance(objective, GenerationObjective)

    def pictures(self, objective: GenerationObjective, done: int, total: int) -> Iterator[tuple[str, Any]]:
        """Yield each modality and its panel."""
        for modality, choices in self._shown().items():
            grid = self.grid(objective.teacher, modality, choices)
            yield modality, sample_panel(grid, f"{modality} after {done:,} of {total:,} steps", NOTE)

    def metrics(self, objective: GenerationObjective, seed: int) -> tuple[dict[str, Any], dict[str, float]]:
        loss = self.loss(objective)
        return {"loss": loss}, {"validation/loss": loss}

    def at_end(self, objective: GenerationObjective, seed: int, folder: Path) -> None:
        """Write nothing: the last panels show the finished generator."""

    @torch.inference_mode()
    def loss(self, objective: GenerationObjective) -> float:
        """Return the mean loss of the averaged weights, at evenly spaced times from data to noise."""
        network, device = objective.teacher.config, _device(objective)
        losses = []
        for first in range(0, len(self._choices), CROPS_AT_ONCE):
            few = self._choices[first : first + CROPS_AT_ONCE]
            batch = self._source.read(few)
            drawn = [objective.config.draw(network, each.generator(Purpose.pretext)) for each in few]
            batch |= {name: torch.stack([row[name] for row in drawn]) for name in drawn[0]}
            batch["time"] = (first + torch.arange(len(few)) + 0.5) / len(self._choices)
            batch = {name: values.to(device) for name, values in batch.items()}
            losses.append(float(generation_loss(objective.teacher, cast(GenerationBatch, batch))) * len(few))
        return sum(losses) / len(self._choices)

    @torch.inference_mode()
    def grid(self, generator: Generator, modality: Modality, choices: Sequence[FactorChoice]) -> SampleGrid:
        """Return samples with the content of each crop in the style of each crop."""
        count, device = len(choices), _device(generator)
        batch = {name: values.to(device) for name, values in self._source.read(choices).items()}
        contents, styles = (each.flatten() for each in _pairs(count))
        given = torch.zeros(count * count, dtype=torch.bool, device=device)
        conditions = Conditions(
            content=batch["content"][contents],
            style=batch["style"][styles],
            drops_content=given,
            drops_style=given,
            spatial_content=batch["spatial_content"][contents] if generator.config.spatial_content else None,
        )
        noise = torch.randn(generator.config.latent_shape, generator=generator_of(choices[0].seed))
        samples = _sampled(generator, conditions, noise.to(device).expand(count * count, *noise.shape))
        tokenizer = cast(Tokenizer, self._model.tokenizer)
        crops, slices = (
            middle_slices(each, tokenizer, self._model.latents) for each in (batch["latent"], samples)
        )
        knots = self._model.card.profiles["CT"].knots if modality == "CT" else None
        return SampleGrid(
            modality=modality,
            ct_profile=IntensityProfile("ct", knots or ((-1000.0, 0.0), (1000.0, 1.0))),
            domains=tuple(self._source.domains[choice.domain] for choice in choices),
            crops=crops,
            samples=slices.reshape(count, count, *slices.shape[1:]),
        )

    def _shown(self) -> dict[Modality, list[FactorChoice]]:
        """Return the first crops of each modality, of different domains."""
        shown: dict[Modality, dict[int, FactorChoice]] = {}
        for choice in self._choices:
            modality = cast(Modality, self._source.entries[choice.scan].modality)
            of_domains = shown.setdefault(modality, {})
            if len(of_domains) < NUM_SHOWN:
                of_domains.setdefault(choice.domain, choice)
        return {modality: list(choices.values()) for modality, choices in sorted(shown.items())}


def _sampled(
    generator: Generator, conditions: Conditions, noise: Float[Tensor, "B C X Y Z"]
) -> Float[Tensor, "B C X Y Z"]:
    """Return the samples of this noise without guidance."""
    sampler = default_sampler(generator_kind(generator.config.prediction))
    times = sampling_times(sampler, SAMPLER_STEPS)
    unguided = Guidance(content_weight=0.0, style_weight=0.0)
    velocity = GuidedVelocity(generator, conditions, unguided, times)
    x = noise
    for state in sampling_steps(sampler, velocity, x, times, torch.randn_like):
        x = state.x
    return x


def _pairs(count: int) -> tuple[Tensor, Tensor]:
    """Return the row number and the column number of each cell of a square."""
    numbers = torch.arange(count)
    return numbers[:, None].expand(count, count), numbers[None].expand(count, count)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device

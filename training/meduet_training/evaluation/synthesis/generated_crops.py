"""Crops from the generator of a model, with the sampler, guidance and noise of `meduet synthesize`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.sliding_windows import cut_window, window_positions
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.pipelines.requests import SynthesisRequest
from napari_meduet.pipelines.synthesis.sampling import (
    MemoryFallback,
    SamplingConditions,
    check_sampler,
    denoised,
)
from napari_meduet.tokenizers.tiling import decode_tiled


@dataclass(frozen=True, kw_only=True, eq=False)
class CropConditions:
    """Conditions of one generated crop; None: no condition.

    Attributes:
        noise: number of the initial noise; equal numbers are equal noise.
        tokens: spatial content, for the same anatomy.
    """

    noise: int
    content: Float[Tensor, " Dc"] | None
    style: Float[Tensor, " Ds"] | None
    tokens: Float[Tensor, "L Dc"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionalSampler:
    """The generator of a model with its sampling options.

    Attributes:
        sampling: sampler, steps and guidance; its other fields are not used.
        seed: seed of noise number 0; noise number k has the seed plus k.
        on_crop: called with 1 after each generated crop.
    """

    model: Model
    sampling: SynthesisRequest
    seed: int
    on_crop: Callable[[int], None] = field(default=lambda count: None)

    def __post_init__(self) -> None:
        check_sampler(self.generator, self.sampling.sampler)

    @property
    def generator(self) -> Generator:
        """The generator of the model.

        Raises:
            InputError: the model has no generator.
        """
        if self.model.generator is None:
            raise InputError(
                f"The model {self.model.card.name} has no generator, so it cannot be evaluated. Train "
                "a generator with `meduet-train generator`."
            )
        return self.model.generator

    @property
    def size(self) -> tuple[int, int, int]:
        """Size of a crop, in tokens."""
        return self.generator.config.grid

    def with_weights(self, content: float, style: float) -> "ConditionalSampler":
        """Return the same sampler with other guidance weights."""
        return replace(self, sampling=replace(self.sampling, content_weight=content, style_weight=style))

    @torch.inference_mode()
    def latents(self, conditions: Iterable[CropConditions]) -> Float[Tensor, "N C x y z"]:
        """Generate standardised latents, one for each set of conditions."""
        return torch.stack([self._latent(each) for each in conditions])

    def _latent(self, conditions: CropConditions) -> Float[Tensor, "C x y z"]:
        sampling = self.sampling  # guidance towards an absent condition has no effect; skipping it saves time
        if conditions.content is None:
            sampling = replace(sampling, content_weight=0.0)
        if conditions.style is None:
            sampling = replace(sampling, style_weight=0.0)
        tokens = None if conditions.tokens is None else conditions.tokens.unflatten(0, self.size)
        sampling_conditions = SamplingConditions(
            size=self.size, content=conditions.content, style=conditions.style, tokens=tokens, start=None
        )
        latent = denoised(
            self.generator,
            sampling_conditions,
            sampling,
            self.seed + conditions.noise,
            MemoryFallback(),
            null_progress,
        )
        self.on_crop(1)
        return latent[0].float().cpu()


@torch.inference_mode()
def decoded(model: Model, latents: Iterable[Float[Tensor, "C x y z"]]) -> Float[Tensor, "N X Y Z"]:
    """Decode standardised latents to volumes of normalised intensity, in half precision."""
    volumes = [decode_tiled(model.tokenizer, model.restored(latent[None]))[0, 0] for latent in latents]
    return torch.stack(volumes).clamp(0, 1).half()


@torch.inference_mode()
def predict_with_model(model: Model, latents: Float[Tensor, "N C x y z"]) -> np.ndarray:
    """Return the domain (N,) of each standardised latent, by the style classifier of the model (M-18)."""
    config = model.meduet.config
    size = config.latent_shape[1:]
    domains = []
    for latent in latents:
        sides = (latent.shape[1], latent.shape[2], latent.shape[3])
        windows = torch.stack([cut_window(latent, at, size) for at in window_positions(sides, size)])
        _, style = model.meduet.encode(windows.to(model.device))
        logits = model.meduet.style_domain(style.mean(dim=1)).mean(dim=0)
        domains.append(model.card.domains[int(logits[: len(model.card.domains)].argmax())])
    return np.array(domains)

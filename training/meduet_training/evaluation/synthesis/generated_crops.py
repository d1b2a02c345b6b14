"""Crops that a model's generator makes, as `meduet synthesize` would: same sampler, guidance and noise."""

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
class Wanted:
    """What one crop is asked to show; None: nothing is said of it.

    Attributes:
        noise: which noise it begins from; equal numbers are equal noise.
        tokens: content of every place, for the same anatomy.
    """

    noise: int
    content: Float[Tensor, " Dc"] | None
    style: Float[Tensor, " Ds"] | None
    tokens: Float[Tensor, "L Dc"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CropMaker:
    """A generator with the way it is sampled.

    Attributes:
        sampling: sampler, steps and guidance; what else it says is not looked at.
        seed: of noise number 0; the next ones count on from it.
        tell: hears how many crops were made so far.
    """

    model: Model
    sampling: SynthesisRequest
    seed: int
    tell: Callable[[int], None] = field(default=lambda count: None)

    def __post_init__(self) -> None:
        check_sampler(self.generator, self.sampling.sampler)

    @property
    def generator(self) -> Generator:
        """The model's.

        Raises:
            InputError: it has none.
        """
        if self.model.generator is None:
            raise InputError(
                f"The model {self.model.card.name} has no generator, so there is nothing to evaluate; train "
                "one with `meduet-train generator`."
            )
        return self.model.generator

    @property
    def size(self) -> tuple[int, int, int]:
        """Of a crop, in tokens."""
        return self.generator.config.grid

    def with_weights(self, content: float, style: float) -> "CropMaker":
        return replace(self, sampling=replace(self.sampling, content_weight=content, style_weight=style))

    @torch.inference_mode()
    def latents(self, wanted: Iterable[Wanted]) -> Float[Tensor, "N C x y z"]:
        """Standardised latents, one for each wish."""
        return torch.stack([self._latent(each) for each in wanted])

    def _latent(self, wanted: Wanted) -> Float[Tensor, "C x y z"]:
        sampling = self.sampling  # a null that is guided towards is itself: its evaluations are saved
        if wanted.content is None:
            sampling = replace(sampling, content_weight=0.0)
        if wanted.style is None:
            sampling = replace(sampling, style_weight=0.0)
        tokens = None if wanted.tokens is None else wanted.tokens.unflatten(0, self.size)
        asked = SamplingConditions(
            size=self.size, content=wanted.content, style=wanted.style, tokens=tokens, start=None
        )
        latent = denoised(
            self.generator, asked, sampling, self.seed + wanted.noise, MemoryFallback(), null_progress
        )
        self.tell(1)
        return latent[0].float().cpu()


@torch.inference_mode()
def decoded(model: Model, latents: Iterable[Float[Tensor, "C x y z"]]) -> Float[Tensor, "N X Y Z"]:
    """Volumes of standardised latents, in profile units and half precision."""
    volumes = [decode_tiled(model.tokenizer, model.restored(latent[None]))[0, 0] for latent in latents]
    return torch.stack(volumes).clamp(0, 1).half()


@torch.inference_mode()
def recognised_by_model(model: Model, latents: Float[Tensor, "N C x y z"]) -> np.ndarray:
    """The domain (N,) that the model's own style classifier reads from each standardised latent (M-18)."""
    config = model.meduet.config
    size = config.latent_shape[1:]
    found = []
    for latent in latents:
        sides = (latent.shape[1], latent.shape[2], latent.shape[3])
        windows = torch.stack([cut_window(latent, at, size) for at in window_positions(sides, size)])
        _, style = model.meduet.encode(windows.to(model.device))
        logits = model.meduet.style_domain(style.mean(dim=1)).mean(dim=0)
        found.append(model.card.domains[int(logits[: len(model.card.domains)].argmax())])
    return np.array(found)

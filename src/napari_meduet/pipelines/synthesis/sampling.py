"""From noise to a volume: sampling, and the fallbacks when memory runs out (specification, section 9).

Noise is drawn on the CPU, whatever device walks, so that a seed means the same everywhere. What is asked for
was gathered by `conditions.py`.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.sliding_windows import Position
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.diffusion import add_noise
from napari_meduet.core.synthesis.generator import Conditions, Generator
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity
from napari_meduet.core.synthesis.sampler_registry import SAMPLERS, generator_kind, samplers_for
from napari_meduet.core.synthesis.samplers import SamplerState, Velocity
from napari_meduet.core.synthesis.sampling import sampling_steps, sampling_times
from napari_meduet.core.synthesis.windowed import WindowedVelocity
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.interruption import interruptible
from napari_meduet.pipelines.requests import SynthesisRequest
from napari_meduet.tokenizers.tiling import MEMORY_BUDGET_BYTES, decode_tiled
from napari_meduet.volumes.intensity import IntensityProfile
from napari_meduet.volumes.volume import UNITS, Modality, Volume

Answer = TypeVar("Answer")

SLOW_EVALUATION_S = 0.5  # above it, what a first evaluation sets up does not matter


@dataclass(frozen=True, kw_only=True)
class MemoryFallback:
    """How much memory a sample may take.

    Attributes:
        batched: all evaluations of a guided step at once.
        tile_bytes: of the tokenizer, at once.
        on_cpu: instead of the device that was chosen.
        told: what it means for the user; empty for the first.
    """

    batched: bool = True
    tile_bytes: int = MEMORY_BUDGET_BYTES
    on_cpu: bool = False
    told: str = ""


class Efforts:
    """What is tried one after the other when memory runs out (docs/reliability.md, G6, G6).

    Attributes:
        effort: the present one; what did not suffice once is not tried again.
        told: sentences for the user.
    """

    def __init__(self, device: torch.device) -> None:
        fewer = MemoryFallback(
            batched=False,
            tile_bytes=MEMORY_BUDGET_BYTES // 8,
            told="Memory ran out; it went on with one evaluation at a time and smaller tiles.",
        )
        on_cpu = MemoryFallback(
            on_cpu=True, told=f"The memory of {device.type} ran out; it went on on the CPU."
        )
        self.effort, self._left = MemoryFallback(), [fewer] if device.type == "cpu" else [fewer, on_cpu]
        self.told: list[str] = []

    def run(self, attempt: Callable[[MemoryFallback], Answer]) -> Answer:
        """What the first effort answers whose memory suffices.

        Raises:
            InputError: none does.
        """
        while True:
            try:
                return attempt(self.effort)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if not self._left:
                    raise InputError(
                        "Memory ran out, with the smallest steps too; nothing was kept. Close other "
                        "programs, or choose a smaller size."
                    ) from error
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.effort = self._left.pop(0)
            self.told.append(self.effort.told)


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch raises its own error for devices, and a plain RuntimeError for the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def check_sampler(generator: Generator, sampler: str) -> None:
    """Refuse a sampler that cannot walk what this generator predicts.

    Raises:
        InputError: with those that can.
    """
    kind = generator_kind(generator.config.prediction)
    usable = samplers_for(kind)
    if sampler not in usable:
        raise InputError(
            f"The sampler {sampler!r} does not fit this model's generator, a {kind}: choose "
            f"{' or '.join(usable)}."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingConditions:
    """What a walk is told: conditions as vectors and grids of tokens; None where nothing is given.

    Attributes:
        size: of the result, in tokens.
        mask: share of each class in every latent voxel, for a ControlNet.
    """

    size: Position
    content: Float[Tensor, " Dc"] | None
    tokens: Float[Tensor, "X Y Z Dc"] | None
    style: Float[Tensor, " Ds"] | None
    start: Float[Tensor, "C x y z"] | None
    mask: Float[Tensor, "K x y z"] | None = None

    def conditions(self, generator: Generator) -> Conditions:
        """One row, on the generator's device."""
        config, device = generator.config, generator.patch_embedding.weight.device
        content = torch.zeros(config.content_width) if self.content is None else self.content
        style = torch.zeros(config.style_width) if self.style is None else self.style
        tokens = None if self.tokens is None else self.tokens.flatten(0, 2).unsqueeze(0).to(device)
        return Conditions(
            content=content.unsqueeze(0).to(device),
            style=style.unsqueeze(0).to(device),
            drops_content=torch.tensor([self.content is None], device=device),
            drops_style=torch.tensor([self.style is None], device=device),
            spatial_content=tokens,
            mask=None if self.mask is None else self.mask.unsqueeze(0).to(device),
        )

    def latent_shape(self, generator: Generator) -> tuple[int, ...]:
        """One row of latents of the size asked for."""
        config = generator.config
        return 1, config.latent_channels, *(config.patch_size * side for side in self.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputSpace:
    """What the voxels of a result mean: their intensities, and where they lie."""

    modality: Modality
    profile: IntensityProfile
    affine: np.ndarray


def guidance_of(request: SynthesisRequest) -> Guidance:
    """The guidance that a request asks for."""
    return Guidance(
        form=request.guidance,
        content_weight=request.content_weight,
        style_weight=request.style_weight,
        interval=request.guidance_interval,
    )


def denoised(
    generator: Generator,
    asked: SamplingConditions,
    request: SynthesisRequest,
    seed: int,
    effort: MemoryFallback,
    on_progress: OnProgress,
    on_step: Callable[[SamplerState], None] = lambda walked: None,
    control: ControlNet | None = None,
) -> Float[Tensor, "1 C x y z"]:
    """The standardised latent that the noise of a seed becomes.

    Progress is told between layers too, so that cancelling waits for none of the steps.

    Args:
        control: follows the mask, where one is asked for.

    Raises:
        InputError: numbers are no longer finite, at the step that it names.
    """
    done, latent = 0, torch.empty(0)

    def report() -> None:
        step = min(done + 1, request.num_steps)
        on_progress(done / request.num_steps, f"denoising, step {step} of {request.num_steps}")

    with interruptible(generator, report):
        for walked in _walk(generator, asked, request, seed, effort, control):
            done, latent = walked.step, walked.x
            on_step(walked)
            report()
    return latent


def _walk(
    generator: Generator,
    asked: SamplingConditions,
    request: SynthesisRequest,
    seed: int,
    effort: MemoryFallback,
    control: ControlNet | None,
) -> Iterator[SamplerState]:
    """The steps from noise, drawn on the CPU, to a latent."""
    draws = torch.Generator().manual_seed(seed)
    device = generator.patch_embedding.weight.device
    times = _times(request, 1.0 if asked.start is None else request.noise)
    x = torch.randn(asked.latent_shape(generator), generator=draws).to(device)
    if asked.start is not None:
        start = asked.start.unsqueeze(0).to(device)
        x = add_noise(generator.config.prediction, start, x, x.new_tensor(times[:1]))
    velocity = _velocity(generator, asked, guidance_of(request), times, effort, control)

    def draw_noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=draws).to(like)

    try:
        yield from sampling_steps(request.sampler, velocity, x, times, draw_noise)
    except ValueError as error:
        raise InputError(
            f"{error} Nothing was kept of it; choose other weights, more steps or another seed."
        ) from error


def seconds_per_evaluation(
    generator: Generator, asked: SamplingConditions, control: ControlNet | None = None
) -> float:
    """How long the network takes to see the whole result once; where that is quick, once it is warm."""
    x = torch.zeros(asked.latent_shape(generator), device=generator.patch_embedding.weight.device)
    unguided = Guidance(content_weight=0.0, style_weight=0.0)
    velocity = _velocity(generator, asked, unguided, [1.0], MemoryFallback(), control)
    seconds = 0.0
    for _ in range(2):
        before = perf_counter()
        velocity(x, 1.0).sum().item()  # waits for a device that runs on its own
        seconds = perf_counter() - before
        if seconds > SLOW_EVALUATION_S:
            break
    return seconds


def num_evaluations(request: SynthesisRequest, start: float) -> int:
    """Evaluations of one volume, as many as guidance needs at each of its times; about one more for Heun."""
    guidance = guidance_of(request)
    rows = [
        len(guidance.combinations) if guidance.is_active(time) else 1 for time in _times(request, start)[:-1]
    ]
    return SAMPLERS[request.sampler].evaluations_per_step * sum(rows)


def _times(request: SynthesisRequest, start: float) -> list[float]:
    try:
        return sampling_times(request.sampler, request.num_steps, start)
    except ValueError as error:
        raise InputError(str(error)) from error


def _velocity(
    generator: Generator,
    asked: SamplingConditions,
    guidance: Guidance,
    times: list[float],
    effort: MemoryFallback,
    control: ControlNet | None,
) -> Velocity:
    """The velocity of a latent of the size asked for; of windows where that is more than the generator's."""
    conditions = asked.conditions(generator)
    given = generator, conditions, guidance, times
    follows = None if asked.mask is None else control
    if asked.size == tuple(generator.config.grid):
        return GuidedVelocity(*given, batched=effort.batched, control=follows)
    return WindowedVelocity(*given, asked.size, batched=effort.batched, control=follows)


def decoded(
    model: Model,
    latent: Float[Tensor, "1 C x y z"],
    place: OutputSpace,
    effort: MemoryFallback,
    on_progress: OnProgress,
) -> Volume:
    """The volume that a standardised latent stands for: CT in whole HU, MR in the profile's unit.

    Raises:
        InputError: it holds numbers that are not finite.
    """
    doing = "decoding"
    on_progress(0.0, doing)
    written = model.restored(latent.float().cpu())
    with interruptible(model.tokenizer, lambda: on_progress(0.0, doing)):
        units = decode_tiled(
            model.tokenizer,
            written,
            memory_budget_bytes=effort.tile_bytes,
            on_progress=lambda done: on_progress(done, doing),
        )
    if not bool(torch.isfinite(units).all()):
        raise InputError(
            "While decoding the latent, the model wrote numbers that are not finite; nothing was kept. "
            "Choose another seed or another model."
        )
    values = place.profile.decode(units[0, 0].numpy())
    voxels = np.asfortranarray(np.rint(values).astype(np.int16) if place.modality == "CT" else values)
    return Volume(
        voxels=voxels,
        affine=place.affine,
        modality=place.modality,
        unit=UNITS[place.modality],
        sha256=hashlib.sha256(voxels.tobytes(order="F")).hexdigest(),
    )

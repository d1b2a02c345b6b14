"""New volumes with the content of one scan and the style of another (specification, section 9).

    noise -> latent, step by step, towards the content and the style asked for -> volume

A session holds what does not change between samples of the same noise; a sample stopped in the middle leaves
what was last seen of it, marked as partial. `conditions.py` gathers what is asked for,
`sampling.py` walks, `outputs.py` names and writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from secrets import randbits
from typing import Any

import numpy as np
import torch

from napari_meduet.core.sliding_windows import Position
from napari_meduet.core.synthesis.acceleration import accelerated
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.core.synthesis.sampler_registry import SAMPLERS, default_sampler
from napari_meduet.core.synthesis.samplers import SamplerState
from napari_meduet.errors import Cancelled, InputError, OnProgress
from napari_meduet.models.card import CONTROL_FILE, GENERATOR_FILE
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.memory import check_synthesis_memory
from napari_meduet.pipelines.common.progress import null_progress, part, parts
from napari_meduet.pipelines.common.provenance import provenance
from napari_meduet.pipelines.requests import Scan, SynthesisRequest
from napari_meduet.pipelines.synthesis.conditions import (
    MR_WITHOUT_A_SCAN,
    GivenContent,
    GivenMask,
    GivenStart,
    GivenStyle,
    ScanReader,
    Source,
    centred_affine,
    same_content,
    similar_content,
    start_of,
    take_mask,
    take_style,
)
from napari_meduet.pipelines.synthesis.outputs import GuidanceGrid, OnPreview, Previews, SynthesisResult
from napari_meduet.pipelines.synthesis.pace import Pace
from napari_meduet.pipelines.synthesis.sampling import (
    Efforts,
    MemoryFallback,
    OutputSpace,
    SamplingConditions,
    check_sampler,
    decoded,
    denoised,
    num_evaluations,
    seconds_per_evaluation,
)
from napari_meduet.volumes.volume import Volume

SEED_BITS = 32  # of a seed that is drawn: short enough to be read out
GRID_STEPS = 8  # of a guidance grid: enough to tell one guidance from another
CHANGEABLE = {
    "content_weight", "style_weight", "guidance", "guidance_interval", "sampler", "steps", "noise", "seed",
    "count",
}  # fmt: skip


def synthesize(
    request: SynthesisRequest, on_progress: OnProgress = null_progress, on_preview: OnPreview | None = None
) -> SynthesisResult:
    """Make new volumes.

    Where `on_progress` raises `Cancelled` after a volume was finished or a preview was given, those are the
    result, partial; before, `Cancelled` goes on to the caller.

    Raises:
        InputError: an input, the model or the device cannot be used, or they do not fit each other; memory
            ran out with the smallest steps too; numbers were no longer finite.
    """
    opening, sampling = parts(on_progress, 1, 4)
    return open_synthesis(request, opening).sample(on_progress=sampling, on_preview=on_preview)


@torch.inference_mode()
def open_synthesis(request: SynthesisRequest, on_progress: OnProgress = null_progress) -> "SynthesisSession":
    """All of a synthesis but the sampling: model, conditions, place and seed."""
    on_progress(0.0, "reading the model")
    model = load_model(request.model, request.device)
    generator = _faster_generator(model, request)
    if request.mask is not None and model.control is None:
        raise InputError(f"The model {model.card.name} has no ControlNet, so it cannot follow a mask.")
    check_sampler(generator, request.sampler)
    num_evaluations(request, request.noise if request.start_from is not None else 1.0)
    size = _size(model, generator, request)
    reader = ScanReader(model, on_progress)
    content = style = start = mask = None
    if request.content is not None:
        source, scan = reader.read("content", request.content, request.content_choice)
        is_same = request.anatomy == "same"
        content = same_content(model, source, scan, size) if is_same else similar_content(source, scan)
        if request.mask is not None:
            mask = take_mask(model, scan, request.mask, size)
    if request.start_from is not None:
        source, scan = reader.read("start", request.start_from, request.start_choice)
        start = start_of(model, source, scan, size)
    if request.style is not None:
        style = take_style(model, reader, request.style, request.style_choice)
    return SynthesisSession(
        request=request,
        seed=randbits(SEED_BITS) if request.seed is None else request.seed,
        model=model,
        size=size,
        content=content,
        style=style,
        start=start,
        mask=mask,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisSession:
    """A synthesis ready to be sampled again and again: the same noise, another style or guidance.

    Attributes:
        seed: the request's, or the one drawn for it.
        size: of a volume, in tokens.
    """

    request: SynthesisRequest
    seed: int
    model: Model
    size: Position
    content: GivenContent | None
    style: GivenStyle | None
    start: GivenStart | None
    mask: GivenMask | None = None

    def with_style(self, style: Scan | None, on_progress: OnProgress = null_progress) -> "SynthesisSession":
        """The same content and noise with another style."""
        with torch.inference_mode():
            reader, choice = ScanReader(self.model, on_progress), self.request.style_choice
            given = None if style is None else take_style(self.model, reader, style, choice)
        return replace(self, request=replace(self.request, style=style), style=given)

    @torch.inference_mode()
    def sample(
        self, *, on_progress: OnProgress = null_progress, on_preview: OnPreview | None = None, **changes: Any
    ) -> SynthesisResult:
        """The volumes.

        Args:
            changes: of the request, in what needs no new conditions: `CHANGEABLE`.
        """
        request = self._changed(changes)
        previews, efforts = Previews(on_preview), Efforts(self.model.device)
        volumes: list[Volume] = []
        steps_done: list[int] = []
        try:
            for number in range(request.count):
                stage = part(on_progress, number / request.count, (number + 1) / request.count)
                volume = efforts.run(
                    lambda effort, number=number, stage=stage: self._one(
                        request, number, effort, stage, previews
                    )
                )
                volumes.append(volume)
                steps_done.append(request.num_steps)
        except Cancelled:
            if previews.latest is not None:
                volumes.append(previews.latest.volume)
                steps_done.append(previews.latest.step)
            if not volumes:
                raise
        model, warnings = self._model(efforts.effort), (*self.warnings, *efforts.told)
        records = [
            self._provenance(request, model, number, steps, warnings)
            for number, steps in enumerate(steps_done)
        ]
        return SynthesisResult(
            samples=tuple(
                replace(volume, synthetic=record) for volume, record in zip(volumes, records, strict=True)
            ),
            provenances=tuple(records),
            is_partial=len(volumes) < request.count or steps_done[-1] < request.num_steps,
            warnings=warnings,
        )

    @torch.inference_mode()
    def guidance_grid(
        self,
        content_weights: Sequence[float],
        style_weights: Sequence[float],
        *,
        steps: int = GRID_STEPS,
        on_progress: OnProgress = null_progress,
    ) -> GuidanceGrid:
        """The first volume under each pair of weights, at few steps: of each the slice through the middle."""
        efforts = Efforts(self.model.device)
        sampler = default_sampler(SAMPLERS[self.request.sampler].generator)
        pairs = [(content, style) for content in content_weights for style in style_weights]
        slices = []
        for number, (content, style) in enumerate(pairs):
            stage = part(on_progress, number / len(pairs), (number + 1) / len(pairs))
            weights = {"content_weight": content, "style_weight": style}
            request = self._changed({**weights, "sampler": sampler, "steps": steps, "count": 1})
            slices.append(
                efforts.run(
                    lambda effort, request=request, stage=stage: self._middle_slice(request, effort, stage)
                )
            )
        rows, columns = len(content_weights), len(style_weights)
        return GuidanceGrid(
            content_weights=tuple(content_weights),
            style_weights=tuple(style_weights),
            slices=np.stack(slices).reshape(rows, columns, *slices[0].shape),
            spacing_mm=self.model.card.working_spacing_mm,
        )

    def predicted_seconds(self, **changes: Any) -> float:
        """About how long `sample` takes to denoise, measured on one evaluation."""
        return Pace(seconds_per_evaluation=self._seconds_per_evaluation).seconds(self._changed(changes))

    @property
    def place(self) -> OutputSpace:
        """What the voxels of a result mean: the style says how it looks, and the content where it lies.

        MR signal has no unit, so its range is that of a scan that was given.
        """
        modality = self._sources[0].modality if self._sources else self.model.card.modalities[0]
        if modality == "CT":
            profile = self.model.profile_for(None, "CT")
        else:
            fitted = (source.profile for source in self._sources if source.modality == modality)
            profile = next((profile for profile in fitted if profile is not None), MR_WITHOUT_A_SCAN)
        affines = (given.affine for given in (self.content, self.mask, self.start) if given is not None)
        affine = next((affine for affine in affines if affine is not None), None)
        if affine is None:
            affine = centred_affine(self.model, self.size)
        return OutputSpace(modality=modality, profile=profile, affine=affine)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful about the result, whatever its noise."""
        place, doubts = self.place, [doubt for source in self._sources for doubt in source.warnings]
        doubts += [
            f"{source.role.capitalize()}: it is {source.modality}, the result {place.modality}."
            for source in self._sources
            if source.modality != place.modality
        ]
        if place.profile is MR_WITHOUT_A_SCAN:
            doubts.append("No MR scan was given whose signal could be copied: it runs from 0 to 1000.")
        is_larger = self.size != tuple(_generator(self.model).config.grid)
        if is_larger and self.start is None and (self.content is None or self.content.tokens is None):
            doubts.append("Beyond the generator's own size, anatomy may repeat unless its places are given.")
        return tuple(doubts)

    @property
    def _sources(self) -> list[Source]:
        return [given.source for given in (self.style, self.content, self.start) if given is not None]

    @cached_property
    def _seconds_per_evaluation(self) -> float:
        with torch.inference_mode():
            generator = _faster_generator(self.model, self.request)
            return seconds_per_evaluation(generator, self._asked, self.model.control)

    @property
    def _asked(self) -> SamplingConditions:
        return SamplingConditions(
            size=self.size,
            content=None if self.content is None else self.content.pooled,
            tokens=None if self.content is None else self.content.tokens,
            style=None if self.style is None else self.style.pooled,
            start=None if self.start is None else self.start.latent,
            mask=None if self.mask is None else self.mask.shares,
        )

    def _changed(self, changes: dict[str, Any]) -> SynthesisRequest:
        assert changes.keys() <= CHANGEABLE, "anything else needs a session of its own"
        given = {name: value for name, value in changes.items() if value is not None}
        request = replace(self.request, **given)
        check_sampler(_generator(self.model), request.sampler)
        return request

    def _model(self, effort: MemoryFallback) -> Model:
        return load_model(self.request.model, "cpu") if effort.on_cpu else self.model

    def _one(
        self,
        request: SynthesisRequest,
        number: int,
        effort: MemoryFallback,
        on_progress: OnProgress,
        previews: Previews,
    ) -> Volume:
        """One of the volumes, previewed on the way."""
        model, place = self._model(effort), self.place
        denoising, decoding = parts(on_progress, 9, 1)
        previews.begin()

        def preview(walked: SamplerState) -> None:
            if walked.step < request.num_steps and previews.is_due:
                watch = part(denoising, walked.step / request.num_steps, walked.step / request.num_steps)
                previews.give(
                    number,
                    walked.step,
                    request.num_steps,
                    lambda: decoded(model, walked.data, place, effort, watch),
                )

        seed = self._seed(request) + number
        generator = _faster_generator(model, request)
        latent = denoised(generator, self._asked, request, seed, effort, denoising, preview, model.control)
        return decoded(model, latent, place, effort, decoding)

    def _middle_slice(
        self, request: SynthesisRequest, effort: MemoryFallback, on_progress: OnProgress
    ) -> np.ndarray:
        """The axial slice through the middle of the first volume; no more is decoded than it needs."""
        model = self._model(effort)
        generator = _faster_generator(model, request)
        latent = denoised(
            generator,
            self._asked,
            request,
            self._seed(request),
            effort,
            on_progress,
            control=model.control,
        )
        middle, margin = latent.shape[-1] // 2, model.tokenizer.halo + 1
        first = max(0, middle - margin)
        slab = decoded(model, latent[..., first : middle + margin], self.place, effort, null_progress)
        return slab.values()[:, :, (middle - first) * model.tokenizer.stride[2]]

    def _seed(self, request: SynthesisRequest) -> int:
        return self.seed if request.seed is None else request.seed

    def _provenance(
        self,
        request: SynthesisRequest,
        model: Model,
        number: int,
        steps_done: int,
        warnings: tuple[str, ...],
    ) -> dict[str, Any]:
        place = self.place
        inputs = [(source.role, source.sha256) for source in self._sources]
        if self.mask is not None:
            inputs.append(("mask", self.mask.sha256))
        return provenance(
            kind="generated",
            modality=place.modality,
            is_synthetic=True,
            sources=inputs,
            model=model,
            parameters={
                "generator_sha256": model.card.files[GENERATOR_FILE].sha256,
                "control_sha256": model.card.files[CONTROL_FILE].sha256 if self.mask is not None else None,
                "anatomy": request.anatomy if self.content is not None else None,
                "style_domain": self.style.domain if self.style is not None else None,
                "sampler": request.sampler,
                "precision": request.precision,
                "steps": request.num_steps,
                "steps_done": steps_done,
                "is_partial": steps_done < request.num_steps,
                "guidance": request.guidance,
                "content_weight": request.content_weight,
                "style_weight": request.style_weight,
                "guidance_interval": list(request.guidance_interval),
                "start_noise": request.noise if self.start is not None else None,
                "noise_drawn_by": "torch.Generator on the CPU",
                "size": [side * token for side, token in zip(self.size, model.token_voxels, strict=True)],
                "affine": place.affine.tolist(),
                "number": number + 1,
                "count": request.count,
            },
            warnings=warnings,
            seed=self._seed(request) + number,
        )


def _generator(model: Model) -> Generator:
    """The model's generator.

    Raises:
        InputError: it has none.
    """
    if model.generator is None:
        raise InputError(
            f"The model {model.card.name} has no generator, so it makes no new scans. Choose another model, "
            "or train a generator for it (meduet-train generator)."
        )
    return model.generator


def _faster_generator(model: Model, request: SynthesisRequest) -> Generator:
    """The model's generator in the precision asked for.

    Raises:
        InputError: it has none, or its device does not know that precision.
    """
    generator = _generator(model)
    try:
        return accelerated(generator, request.precision)
    except ValueError as error:
        raise InputError(str(error)) from error


def _size(model: Model, generator: Generator, request: SynthesisRequest) -> Position:
    """The size of a volume, in tokens.

    Raises:
        InputError: it is no whole number of tokens, smaller than the generator's own, or too large for the
            memory; or the content of every place is asked for and the generator takes none.
    """
    if request.anatomy == "same" and request.content is not None and not generator.config.spatial_content:
        raise InputError("This model's generator takes no content of places: ask for anatomy 'similar'.")
    token = model.token_voxels
    own = generator.config.grid
    smallest = [side * step for side, step in zip(own, token, strict=True)]
    x, y, z = request.size or smallest
    if any(side % step or side < least for side, step, least in zip((x, y, z), token, smallest, strict=True)):
        raise InputError(
            f"size must be multiples of {' '.join(map(str, token))} and at least the generator's own "
            f"{' '.join(map(str, smallest))}; got {x} {y} {z}."
        )
    check_synthesis_memory(model, (x, y, z))
    return x // token[0], y // token[1], z // token[2]

"""How long a synthesis will take, told before anything of it is begun (specification, section 9)."""

from dataclasses import dataclass

import torch

from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.requests import SynthesisRequest
from napari_meduet.pipelines.synthesis.sampling import (
    SamplingConditions,
    num_evaluations,
    seconds_per_evaluation,
)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The time of one evaluation of a generator, on one device at one size."""

    seconds_per_evaluation: float

    def seconds(self, request: SynthesisRequest) -> float:
        """About how long denoising takes, previews and reading left out.

        Raises:
            InputError: so few steps cannot be walked.
        """
        start = 1.0 if request.start_from is None else request.noise
        return request.count * num_evaluations(request, start) * self.seconds_per_evaluation


@torch.inference_mode()
def measured_pace(request: SynthesisRequest) -> Pace | None:
    """The pace of what a request names: model, device and size; None where the model makes no scans.

    Raises:
        InputError: the model or the device cannot be used.
    """
    model = load_model(request.model, request.device)
    if model.generator is None:
        return None
    own = model.generator.config.grid
    x, y, z = (
        own
        if request.size is None
        else (side // token for side, token in zip(request.size, model.token_voxels, strict=True))
    )
    asked = SamplingConditions(size=(x, y, z), content=None, tokens=None, style=None, start=None)
    return Pace(seconds_per_evaluation=seconds_per_evaluation(model.generator, asked))

"""The velocity that samplers follow: a generator under guidance (Eqs. 21-24).

A guided step needs predictions under two to four combinations of conditions. The modulation of each
combination and of each time is computed once, before the first step. The combinations of a step form one
batch, or run one after the other if memory is short. `guidance.py` combines the predictions.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.options import GUIDANCE_WEIGHT, GuidanceForm
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Conditions, Generator
from napari_meduet.core.synthesis.guidance import (
    compositional_guidance,
    dual_guidance,
    nested_guidance,
    rescaled,
)
from napari_meduet.core.synthesis.interpolant import velocity_of_data

Combination = Literal["both", "style_only", "content_only", "neither"]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Form, weights and interval of guidance.

    Attributes:
        form: how the predictions are combined (guidance.py).
        content_weight, style_weight: strength of each factor; 0 is no guidance, the paper uses 3.
        interval: earliest and latest time of guidance. Outside of it the conditional model is used.
        rescale: fraction of the way back to the std of the conditional prediction, 0 to 1.

    Examples:
        >>> Guidance(content_weight=2.0, style_weight=0.0).combinations
        ('both', 'style_only')
    """

    form: GuidanceForm = "paper"
    content_weight: float = GUIDANCE_WEIGHT
    style_weight: float = GUIDANCE_WEIGHT
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("content_weight", "style_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 (no guidance) or more; got {getattr(self, name)}.")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"interval must run from a lower to a higher time between 0 and 1; got {low} to {high}."
            )
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale is a fraction from 0 to 1; got {self.rescale}.")

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """Combinations of conditions that a guided prediction needs, "both" first."""
        content, style = self.content_weight > 0, self.style_weight > 0
        needs: dict[Combination, bool] = {"both": True}
        if self.form == "paper":
            needs |= {"style_only": content, "content_only": style}
        elif self.form == "compositional":
            needs |= {"style_only": style, "content_only": content, "neither": content or style}
        else:
            needs |= {"content_only": content or style, "neither": content}
        return tuple(name for name, is_needed in needs.items() if is_needed)

    def is_active(self, time: float) -> bool:
        """Return whether guidance is used at this time."""
        low, high = self.interval
        return low <= time <= high

    def guided(self, predicted: dict[Combination, Float[Tensor, "B *S"]]) -> Float[Tensor, "B *S"]:
        """Return the guided prediction.

        Combinations that only a weight of 0 would multiply may be missing.
        """
        both = predicted["both"]
        if len(predicted) == 1:
            return both
        style_only, content_only, neither = (
            predicted.get(name, both) for name in ("style_only", "content_only", "neither")
        )
        weights = self.content_weight, self.style_weight
        if self.form == "paper":
            guided = dual_guidance(both, style_only, content_only, *weights)
        elif self.form == "compositional":
            guided = compositional_guidance(both, style_only, content_only, neither, *weights)
        else:
            guided = nested_guidance(both, content_only, neither, *weights)
        return rescaled(guided, both, self.rescale) if self.rescale else guided


def combined_conditions(conditions: Conditions, combination: Combination) -> Conditions:
    """Conditions of an evaluation: both, style only, content only. Eq. (21), Eq. (22), Eq. (23).

    A null replaces the content in e_ns ("style_only", Eq. 22), the style in e_cn ("content_only", Eq. 23)
    and both in e_nn ("neither"). Without content there is no spatial content either.
    """
    without_content = combination in ("style_only", "neither")
    without_style = combination in ("content_only", "neither")
    spatial = conditions.spatial_content
    return replace(
        conditions,
        drops_content=conditions.drops_content | without_content,
        drops_style=conditions.drops_style | without_style,
        spatial_content=torch.zeros_like(spatial) if without_content and spatial is not None else spatial,
    )


class GuidedVelocity:
    """The guided velocity of a generator as a function of latent and time; for a DiT, the guided noise.

    Args:
        conditions: one row for each row of the latent.
        times: all times at which the function will be called.
        batched: evaluate all combinations at once; False needs less memory.
        control: follows the mask of the conditions, under every combination.

    Attributes:
        num_evaluations: evaluations of the generator so far for each row of the latent.
    """

    def __init__(
        self,
        generator: Generator,
        conditions: Conditions,
        guidance: Guidance,
        times: Sequence[float],
        *,
        batched: bool = True,
        control: ControlNet | None = None,
    ) -> None:
        if control is not None and conditions.mask is None:
            raise ValueError("A ControlNet needs a mask, and these conditions have none. Add a mask.")
        self.generator, self.guidance, self.batched, self.control = generator, guidance, batched, control
        self._weight = generator.patch_embedding.weight
        with torch.no_grad():
            combined = self._combined(conditions)
            self._modulation = torch.cat([generator.condition_modulation(each) for each in combined])
            unique = sorted(set(times))
            by_time = generator.time_modulation(torch.tensor(unique, device=self._weight.device))
            self._time_modulation = dict(zip(unique, by_time, strict=True))
        self._set_spatial_conditions(conditions)

    def with_spatial_conditions(self, conditions: Conditions) -> "GuidedVelocity":
        """Return this velocity with the spatial content and mask of other conditions.

        Pooled content and style remain.
        """
        other = copy.copy(self)
        other._set_spatial_conditions(conditions)
        return other

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "B C X Y Z"], time: float) -> Float[Tensor, "B C X Y Z"]:
        names = self.guidance.combinations if self.guidance.is_active(time) else ("both",)
        rows = len(x)
        size = rows * len(names) if self.batched else rows
        starts = range(0, rows * len(names), size)
        predicted = torch.cat([self._predict(x, slice(start, start + size), time) for start in starts])
        self.num_evaluations += len(names)
        guided = self.guidance.guided(dict(zip(names, predicted.chunk(len(names)), strict=True)))
        if self.generator.config.prediction == "data":
            return velocity_of_data(x, guided, x.new_full((rows,), time))
        return guided

    def _predict(self, x: Float[Tensor, "B C X Y Z"], rows: slice, time: float) -> Float[Tensor, "N C X Y Z"]:
        """Return predictions for some of the rows of all combinations."""
        modulation = self._modulation[rows] + self._time_modulation[time]
        spatial = None if self._spatial is None else self._spatial[rows]
        times = len(modulation) // len(x)
        latent = x.to(self._weight.dtype).repeat(times, 1, 1, 1, 1)
        control = ()
        if self.control is not None and self._mask is not None:
            control = self.control(latent, self._mask.repeat(times, 1, 1, 1, 1), modulation, spatial)
        return self.generator.predict(latent, modulation, spatial, control).to(x.dtype)

    def _combined(self, conditions: Conditions) -> list[Conditions]:
        return [combined_conditions(conditions, name) for name in self.guidance.combinations]

    @torch.no_grad()
    def _set_spatial_conditions(self, conditions: Conditions) -> None:
        self.num_evaluations = 0
        self._mask = conditions.mask
        tokens = [self.generator.spatial_tokens(each) for each in self._combined(conditions)]
        present = [each for each in tokens if each is not None]
        self._spatial = torch.cat(present) if present else None

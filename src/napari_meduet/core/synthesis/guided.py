"""A generator under guidance, as samplers walk it: what no step changes is computed once.

A guided step needs the prediction under two to four combinations of conditions. What each combination adds to
the modulation, and what each time adds, is known before the first step; the combinations of a step are rows
of one batch, or follow each other where memory is short.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Conditions, Generator
from napari_meduet.core.synthesis.guidance import (
    Form,
    compositional_guidance,
    dual_guidance,
    nested_guidance,
    rescaled,
)
from napari_meduet.core.synthesis.interpolant import velocity_of_data

Combination = Literal["both", "style_only", "content_only", "neither"]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How strongly content and style steer a sample; the weights are the paper's.

    Attributes:
        interval: earliest and latest time at which it steers; at others the conditional model is alone.
        rescale: share of the way back to the spread of the conditional prediction, 0 to 1.
    """

    form: Form = "paper"
    content_weight: float = 3.0
    style_weight: float = 3.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("content_weight", "style_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is 0 (no guidance) or more; got {getattr(self, name)}.")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"The interval of guidance lies within 0 to 1, low before high; got {low} {high}."
            )
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale is a share from 0 to 1; got {self.rescale}.")

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """The combinations of conditions that a guided prediction needs, "both" first."""
        content, style = self.content_weight > 0, self.style_weight > 0
        needs: dict[Combination, bool] = {"both": True}
        if self.form == "paper":
            needs |= {"style_only": content, "content_only": style}
        elif self.form == "compositional":
            needs |= {"style_only": style, "content_only": content, "neither": content or style}
        else:
            needs |= {"content_only": content or style, "neither": content}
        return tuple(name for name, is_needed in needs.items() if is_needed)

    def steers(self, time: float) -> bool:
        low, high = self.interval
        return low <= time <= high

    def guided(self, predicted: dict[Combination, Float[Tensor, "B *S"]]) -> Float[Tensor, "B *S"]:
        """The guided prediction; combinations that only a weight of 0 would multiply may be missing."""
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
    """The conditions of one evaluation: both factors, or a null in place of one or both. Eq. (21).

    Without content there is none of any place either.
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
    """The velocity that guidance makes of a generator's predictions; of a DiT, the guided noise.

    Args:
        conditions: one row for each row that will be walked.
        times: every time that will be asked for.
        batched: all combinations in one evaluation; False takes less memory.
        control: follows the mask of the conditions, under every combination alike.

    Attributes:
        num_evaluations: rows evaluated so far for each row of x.
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
            raise ValueError("A ControlNet follows a mask, and these conditions have none.")
        self.generator, self.guidance, self.batched, self.control = generator, guidance, batched, control
        self._weight = generator.patch_embedding.weight
        with torch.no_grad():
            given = self._combined(conditions)
            self._modulation = torch.cat([generator.condition_modulation(each) for each in given])
            unique = sorted(set(times))
            by_time = generator.time_modulation(torch.tensor(unique, device=self._weight.device))
            self._time_modulation = dict(zip(unique, by_time, strict=True))
        self._take_places(conditions)

    def elsewhere(self, conditions: Conditions) -> "GuidedVelocity":
        """The same velocity at other places: theirs are taken, content and style remain."""
        other = copy.copy(self)
        other._take_places(conditions)
        return other

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "B C X Y Z"], time: float) -> Float[Tensor, "B C X Y Z"]:
        names = self.guidance.combinations if self.guidance.steers(time) else ("both",)
        each = len(x)
        size = each * len(names) if self.batched else each
        starts = range(0, each * len(names), size)
        predicted = torch.cat([self._predict(x, slice(start, start + size), time) for start in starts])
        self.num_evaluations += len(names)
        guided = self.guidance.guided(dict(zip(names, predicted.chunk(len(names)), strict=True)))
        if self.generator.config.prediction == "data":
            return velocity_of_data(x, guided, x.new_full((each,), time))
        return guided

    def _predict(self, x: Float[Tensor, "B C X Y Z"], rows: slice, time: float) -> Float[Tensor, "N C X Y Z"]:
        """Predictions for some of the rows of all combinations."""
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
    def _take_places(self, conditions: Conditions) -> None:
        self.num_evaluations = 0
        self._mask = conditions.mask
        tokens = [self.generator.spatial_tokens(each) for each in self._combined(conditions)]
        given = [each for each in tokens if each is not None]
        self._spatial = torch.cat(given) if given else None

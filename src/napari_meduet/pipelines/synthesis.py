"""New volumes with the content of one scan and the style of another (SPEC section 9)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from napari_meduet.errors import OnProgress
from napari_meduet.pipelines.progress import silent
from napari_meduet.pipelines.requests import Scan, SynthesisRequest
from napari_meduet.pipelines.synthesis_outputs import GuidanceGrid, Preview, SynthesisResult

OnPreview = Callable[[Preview], None]


def synthesize(
    request: SynthesisRequest, on_progress: OnProgress = silent, on_preview: OnPreview | None = None
) -> SynthesisResult:
    """Make new volumes.

    Where `on_progress` raises `Cancelled` after a volume was finished or a preview was given, those are the
    result, partial; before, `Cancelled` goes on to the caller.
    """
    raise NotImplementedError


def open_synthesis(request: SynthesisRequest, on_progress: OnProgress = silent) -> "SynthesisSession":
    """All of a synthesis but the sampling: model, conditions, place and noise."""
    raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisSession:
    """A synthesis ready to be sampled again and again: same noise, another style or guidance."""

    request: SynthesisRequest
    seed: int  # the request's, or the one drawn for it

    def sample(
        self,
        *,
        content_weight: float | None = None,
        style_weight: float | None = None,
        steps: int | None = None,
        on_progress: OnProgress = silent,
        on_preview: OnPreview | None = None,
    ) -> SynthesisResult:
        """The volumes, by default with the request's guidance and steps."""
        raise NotImplementedError

    def with_style(self, style: Scan | None, on_progress: OnProgress = silent) -> "SynthesisSession":
        """The same content and noise with another style."""
        raise NotImplementedError

    def guidance_grid(
        self,
        content_weights: Sequence[float],
        style_weights: Sequence[float],
        *,
        steps: int = 8,
        on_progress: OnProgress = silent,
    ) -> GuidanceGrid:
        """The first volume under each pair of weights, at few steps."""
        raise NotImplementedError

    def predicted_seconds(self, steps: int | None = None) -> float:
        """About how long `sample` takes, measured on one evaluation."""
        raise NotImplementedError

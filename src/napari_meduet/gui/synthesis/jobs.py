"""Calls that the synthesis dock runs on its worker thread. torch is imported inside them."""

from typing import TYPE_CHECKING

from napari_meduet.errors import OnProgress
from napari_meduet.pipelines.common.progress import parts
from napari_meduet.pipelines.requests import Scan, SynthesisRequest

if TYPE_CHECKING:
    from napari_meduet.pipelines.synthesis.outputs import GuidanceGrid, OnPreview, SynthesisResult
    from napari_meduet.pipelines.synthesis.pace import Pace
    from napari_meduet.pipelines.synthesis.session import SynthesisSession

TRIED_WEIGHTS = (0.0, 1.0, 2.0, 4.0)  # content weights and style weights of the guidance grid


def open_and_sample(
    request: SynthesisRequest, on_preview: "OnPreview", on_progress: OnProgress
) -> "tuple[SynthesisSession, SynthesisResult]":
    """Open a synthesis session and sample from it. Return the session and the result."""
    from napari_meduet.pipelines.synthesis.session import open_synthesis

    opening, sampling = parts(on_progress, 1, 4)
    session = open_synthesis(request, opening)
    return session, session.sample(on_progress=sampling, on_preview=on_preview)


def sample_in_style(
    session: "SynthesisSession", style: Scan | None, on_preview: "OnPreview", on_progress: OnProgress
) -> "SynthesisResult":
    """Sample one volume with the session's noise and content and another style."""
    encoding, sampling = parts(on_progress, 1, 4)
    other = session.with_style(style, encoding)
    return other.sample(on_progress=sampling, on_preview=on_preview, count=1)


def try_weights(request: SynthesisRequest, on_progress: OnProgress) -> "GuidanceGrid":
    """Return previews of one volume with many combinations of guidance weights."""
    from napari_meduet.pipelines.synthesis.session import open_synthesis

    opening, sampling = parts(on_progress, 1, 6)
    session = open_synthesis(request, opening)
    content = TRIED_WEIGHTS if request.content is not None else (0.0,)
    style = TRIED_WEIGHTS if request.style is not None else (0.0,)
    return session.guidance_grid(content, style, on_progress=sampling)


def measure_pace(request: SynthesisRequest) -> "Pace | None":
    """Measure the generator's speed on this machine; None for a request that fails. Run shows its error."""
    from napari_meduet.errors import InputError
    from napari_meduet.gui.common.background import use_all_cores
    from napari_meduet.pipelines.synthesis.pace import measured_pace

    use_all_cores()
    try:
        return measured_pace(request)
    except (InputError, RuntimeError, MemoryError):
        return None

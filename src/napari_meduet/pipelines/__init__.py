"""One user's question each: a request goes in, volumes and a report come out.

The public Python API. Nothing here imports torch before a question is asked:

    from napari_meduet.pipelines import SwapRequest, swap

    result = swap(SwapRequest("content.nii.gz", "style.nii.gz", strength=0.8))
    print(result.report.verdict, *result.report.reasons)
    result.save("harmonised.nii.gz")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_meduet.errors import Cancelled, InputError
    from napari_meduet.models.loading import load_model
    from napari_meduet.models.styles import load_style
    from napari_meduet.pipelines.classification import classify
    from napari_meduet.pipelines.factors import extract, make_prototype
    from napari_meduet.pipelines.info import describe
    from napari_meduet.pipelines.reconstruction import roundtrip
    from napari_meduet.pipelines.requests import (
        ClassifyRequest,
        ExtractRequest,
        PrototypeRequest,
        RoundtripRequest,
        ScanChoice,
        SegmentRequest,
        SwapRequest,
        SynthesisRequest,
        TeachRequest,
    )
    from napari_meduet.pipelines.segmentation.finetuning import teach
    from napari_meduet.pipelines.segmentation.session import segment
    from napari_meduet.pipelines.style_swap.session import open_swap, swap
    from napari_meduet.pipelines.synthesis.session import open_synthesis, synthesize
    from napari_meduet.volumes.files import list_series, read_volume, write_volume
    from napari_meduet.volumes.volume import Volume

_HOMES = {
    "napari_meduet.errors": ("Cancelled", "InputError"),
    "napari_meduet.models.loading": ("load_model",),
    "napari_meduet.models.styles": ("load_style",),
    "napari_meduet.pipelines.classification": ("classify",),
    "napari_meduet.pipelines.factors": ("extract", "make_prototype"),
    "napari_meduet.pipelines.info": ("describe",),
    "napari_meduet.pipelines.requests": (
        "ClassifyRequest",
        "ExtractRequest",
        "PrototypeRequest",
        "RoundtripRequest",
        "ScanChoice",
        "SegmentRequest",
        "SwapRequest",
        "SynthesisRequest",
        "TeachRequest",
    ),
    "napari_meduet.pipelines.style_swap.session": ("open_swap", "swap"),
    "napari_meduet.pipelines.reconstruction": ("roundtrip",),
    "napari_meduet.pipelines.segmentation.session": ("segment",),
    "napari_meduet.pipelines.synthesis.session": ("open_synthesis", "synthesize"),
    "napari_meduet.pipelines.segmentation.finetuning": ("teach",),
    "napari_meduet.volumes.files": ("list_series", "read_volume", "write_volume"),
    "napari_meduet.volumes.volume": ("Volume",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Cancelled",
    "ClassifyRequest",
    "ExtractRequest",
    "InputError",
    "PrototypeRequest",
    "RoundtripRequest",
    "ScanChoice",
    "SegmentRequest",
    "SwapRequest",
    "SynthesisRequest",
    "TeachRequest",
    "Volume",
    "classify",
    "describe",
    "extract",
    "list_series",
    "load_model",
    "load_style",
    "make_prototype",
    "open_swap",
    "open_synthesis",
    "read_volume",
    "roundtrip",
    "segment",
    "swap",
    "synthesize",
    "teach",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    """A public name, imported from its home when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)

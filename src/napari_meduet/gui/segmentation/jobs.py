"""Calls that the segmentation dock runs on its worker thread. torch is imported inside them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from napari_meduet.errors import OnProgress
from napari_meduet.pipelines.requests import SegmentRequest
from napari_meduet.volumes.volume import Volume

if TYPE_CHECKING:
    from napari_meduet.pipelines.segmentation.session import SegmentationResult


def segment_scan(
    scan: Callable[[], Volume], options: Mapping[str, Any], on_progress: OnProgress
) -> "SegmentationResult":
    """Return the segmentation of a scan. `scan` converts the layer here, off the GUI thread."""
    from napari_meduet.pipelines.segmentation.session import segment

    return segment(SegmentRequest(scan(), **options), on_progress)

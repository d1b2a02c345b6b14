"""What the segmentation dock has computed on its worker thread; torch is imported there."""

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
    """The structures in a scan that is made of its layer here, off the GUI thread."""
    from napari_meduet.pipelines.segmentation.session import segment

    return segment(SegmentRequest(scan(), **options), on_progress)

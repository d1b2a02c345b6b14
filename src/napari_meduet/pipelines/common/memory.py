"""Check that a job fits into the free memory before the job starts (docs/reliability.md, G7).

When memory runs out on a shared computer, the system kills the job without a message, and perhaps other jobs
too. The free memory is the smallest of what the system, the container and the limit of the process leave.
"""

from pathlib import Path

import psutil

from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import scans_read
from napari_meduet.pipelines.common.score_slabs import slabs_bytes
from napari_meduet.tokenizers.tiling import MEMORY_BUDGET_BYTES
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.volume import Volume

# Arrays of 32-bit numbers that live at once, counted at the peak of a swap and confirmed by tests/pipelines.
NATIVE_COPIES = 10
WORKING_COPIES = 10
WORKING_COPIES_OF_SEGMENTATION = 6  # finding the body takes most
FEATURE_COPIES = 2  # their sum and their mean
CLEANING_BYTES = 8  # a voxel: of the labels, and of the connected parts of one
NATIVE_COPIES_OF_MR = 3  # a profile is fitted to the values; of CT there are labels, and planes of scores
FLOAT_BYTES = 4
GIB = 2**30


def check_memory(model: Model, *scans: Volume) -> None:
    """Refuse scans for which the memory that is free will not do; the largest of them decides.

    Raises:
        InputError: with what is needed and what is free.
    """
    _refuse_above_free(max(needed_bytes(model, scan) for scan in scans))


def check_segmentation_memory(
    model: Model, network: LatentUNETR, scan: Volume, *, largest_parts: bool = False
) -> None:
    """Refuse to segment a scan for which the memory that is free will not do.

    Raises:
        InputError: with what is needed and what is free.
    """
    cleaning = CLEANING_BYTES * scan.voxels.size if largest_parts else 0
    _refuse_above_free(max(segmentation_bytes(model, network, scan), cleaning))


def check_synthesis_memory(model: Model, shape: tuple[int, int, int]) -> None:
    """Refuse a result, in voxels of the working grid, for which the memory that is free will not do.

    Raises:
        InputError: with what is needed and what is free.
    """
    free, num_voxels = free_bytes(), _product(shape)
    latents = num_voxels / _product(model.tokenizer.stride)
    tiles = min(MEMORY_BUDGET_BYTES, latents * model.tokenizer.bytes_per_latent_voxel)
    needed = FLOAT_BYTES * WORKING_COPIES * num_voxels + tiles
    if needed > free:
        raise InputError(
            f"{' x '.join(map(str, shape))} voxels need about {needed / GIB:.1f} GiB of memory and "
            f"{free / GIB:.1f} GiB are free. Close other programs, or choose a smaller size."
        )


def needed_bytes(model: Model, scan: Volume) -> int:
    """About what a swap of a scan takes at its peak."""
    grid = WorkingGrid.for_volume(scan, model.card.working_spacing_mm)
    num_native, num_working = scan.voxels.size, _product(grid.shape)
    latents = num_working / _product(model.tokenizer.stride)
    tiles = min(MEMORY_BUDGET_BYTES, latents * model.tokenizer.bytes_per_latent_voxel)
    return int(FLOAT_BYTES * (NATIVE_COPIES * num_native + WORKING_COPIES * num_working) + tiles)


def segmentation_bytes(model: Model, network: LatentUNETR, scan: Volume) -> int:
    """About what segmenting a scan, and those read with it, takes at its peak; no whole scan of scores is."""
    grid = WorkingGrid.for_volume(scan, model.card.working_spacing_mm)
    config = model.meduet.config
    sides = [
        max(-(-voxels // token), tokens) * config.patch_size
        for voxels, token, tokens in zip(grid.shape, model.token_voxels, config.grid, strict=True)
    ]
    latents = _product(tuple(sides))
    tiles = min(MEMORY_BUDGET_BYTES, latents * model.tokenizer.bytes_per_latent_voxel)
    of_a_scan = WORKING_COPIES_OF_SEGMENTATION * _product(grid.shape)
    of_a_scan += scan.voxels.size * (NATIVE_COPIES_OF_MR if scan.modality == "MR" else 1)
    numbers = scans_read(network, model) * of_a_scan + FEATURE_COPIES * network.config.features * latents
    return int(
        FLOAT_BYTES * numbers + max(tiles, slabs_bytes(model, network, (sides[0], sides[1], sides[2])))
    )


def free_bytes() -> int:
    """Return the bytes of memory that this process may still take."""
    limits = [psutil.virtual_memory().available, _left_in_container(), _left_to_process()]
    return min(limit for limit in limits if limit is not None)


def _refuse_above_free(needed: int) -> None:
    free = free_bytes()
    if needed > free:
        raise InputError(
            f"This scan needs about {needed / GIB:.1f} GiB of memory and {free / GIB:.1f} GiB are free. "
            "Close other programs, or crop the scan to the region of interest."
        )


def _left_in_container() -> int | None:
    """Return the bytes that a control group (version 2) leaves; None without a limit."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def _left_to_process() -> int | None:
    """Return the bytes that RLIMIT_AS leaves; None without a limit, and on Windows, which has none."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else max(0, limit - psutil.Process().memory_info().vms)


def _product(shape: tuple[int, ...]) -> int:
    x, y, z = shape
    return x * y * z

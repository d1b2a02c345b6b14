"""The class scores of a whole scan, a slab at a time (specification, section 10).

Features lie on the latent grid, 64 times smaller than the scores of one class. A head is a row of stages. All
but the last are taken through the whole scan one by one, each in slabs that see as much around them as that
stage looks at: nothing is computed twice and there are no seams. The last makes the scores, of which only a
slab ever exists. (A head that normalises over space, as MAISI's decoder does, has faint seams.)
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.analysis.heads import HeadStage
from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.errors import OnProgress
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import PreparedScan, finite
from napari_meduet.pipelines.common.interruption import interruptible
from napari_meduet.pipelines.common.progress import parts

SLAB_BUDGET_BYTES = 256 * 2**20
SCORE_COPIES = 4  # of what a head writes, alive at once
KEPT_SHARE = 1 / 3  # of what a decoder has alive: what a stage reads and writes, of the whole scan
FLOAT_BYTES = 4
AIR_MARGIN = 1.0  # by which the background wins in air, in logits
DOING = "deciding"

Slab = tuple[int, int]  # first layer along z, and the one after the last


def score_slabs(
    model: Model,
    network: LatentUNETR,
    features: Float[Tensor, "F x y z"],
    scan: PreparedScan,
    on_progress: OnProgress,
) -> Iterator[np.ndarray]:
    """Scores of the scan's working grid, (K, X, Y, n) following each other along z.

    Args:
        features: of the padded working volume.

    Raises:
        InputError: scores are not finite.
    """
    stages: list[HeadStage] = network.head.stages
    thickness = slab_layers(model, network, (features.shape[1], features.shape[2]))
    *looking, deciding = parts(on_progress, *[1] * (len(stages) - 1), 2)
    for stage, report in zip(stages[:-1], looking, strict=True):
        features = _through(network, stage, features, thickness, report)

    strides, depth = model.tokenizer.stride, features.shape[-1]
    stride = strides[2]  # slabs follow each other along z
    first, last = scan.before[2], depth * stride - scan.after[2]  # in voxels of the padded working volume
    columns = tuple(
        slice(low, side * step - high)
        for low, high, side, step in zip(
            scan.before[:2], scan.after[:2], features.shape[1:3], strides[:2], strict=True
        )
    )
    wanted = first // stride, -(-last // stride)
    for (start, stop), scores in _in_slabs(network, stages[-1], features, thickness, wanted, deciding):
        for layer in range(start, stop):
            deciding((layer - wanted[0]) / (wanted[1] - wanted[0]), DOING)
            low, high = max(layer * stride, first), min((layer + 1) * stride, last)
            yield scores[:, *columns, low - start * stride : high - start * stride].numpy()


def without_air(slabs: Iterable[np.ndarray], air: np.ndarray) -> Iterator[np.ndarray]:
    """Scores, slab by slab, that give the air around the body to the background, whatever a network says.

    Args:
        air: (X, Y, Z) on the working grid (`PreparedScan.air`).
    """
    start = 0
    for slab in slabs:
        stop = start + slab.shape[-1]
        here = air[..., start:stop]
        np.minimum(slab[1:], slab[0] - AIR_MARGIN, out=slab[1:], where=here)
        yield slab
        start = stop


def slab_layers(model: Model, network: LatentUNETR, sides: tuple[int, int]) -> int:
    """How many latent layers of a scan, so many latent voxels each, a stage takes at once."""
    reach, (x, y) = _reach(network), sides
    affordable = SLAB_BUDGET_BYTES // (x * y * head_bytes(model, network))
    return max(affordable - 2 * reach, reach, 1)


def slabs_bytes(model: Model, network: LatentUNETR, sides: tuple[int, int, int]) -> int:
    """What the head takes of memory at its peak, for features of so many latent voxels."""
    x, y, z = sides
    layers = min(slab_layers(model, network, (x, y)) + 2 * _reach(network), z)
    kept = int(KEPT_SHARE * model.tokenizer.bytes_per_latent_voxel)
    return x * y * (layers * head_bytes(model, network) + z * kept)


def head_bytes(model: Model, network: LatentUNETR) -> int:
    """Working memory of the head for a latent voxel: that of the decoder it is like, or the scores."""
    scores = FLOAT_BYTES * network.config.num_classes * math.prod(model.tokenizer.stride)
    return max(model.tokenizer.bytes_per_latent_voxel, SCORE_COPIES * scores)


def _through(
    network: LatentUNETR,
    stage: HeadStage,
    features: Float[Tensor, "F x y z"],
    thickness: int,
    on_progress: OnProgress,
) -> Float[Tensor, "W x y z"]:
    """Features of a whole scan after a stage of the head."""
    depth = features.shape[-1]
    after = torch.empty(0)
    for (start, stop), part in _in_slabs(network, stage, features, thickness, (0, depth), on_progress):
        if start == 0:
            after = torch.empty(*part.shape[:-1], depth)
        after[..., start:stop] = part
    return after


def _in_slabs(
    network: LatentUNETR,
    stage: HeadStage,
    features: Float[Tensor, "F x y z"],
    thickness: int,
    wanted: Slab,
    on_progress: OnProgress,
) -> Iterator[tuple[Slab, Tensor]]:
    """Each slab of the wanted layers, and what a stage of the head makes of it."""
    device = next(network.parameters()).device
    depth, (first, last) = features.shape[-1], wanted
    for start in range(first, last, thickness):
        stop = min(start + thickness, last)
        low, high = max(0, start - stage.reach), min(depth, stop + stage.reach)
        done = (start - first) / (last - first)
        with interruptible(network.head, lambda done=done: on_progress(done, DOING)):
            part = stage.compute(features[None, ..., low:high].to(device))[0].float().cpu()
        scale = part.shape[-1] // (high - low)
        yield (start, stop), finite(part[..., (start - low) * scale : (stop - low) * scale], DOING)


def _reach(network: LatentUNETR) -> int:
    return max(stage.reach for stage in network.head.stages)

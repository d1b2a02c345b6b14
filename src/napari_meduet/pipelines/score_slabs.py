"""The class scores of a whole scan, a slab at a time (SPEC section 10).

Features lie on the latent grid, 64 times smaller than the scores of one class; the head makes scores of a few
latent layers at once, with as many around them as it looks at, so that slabs have no seams. (A head that
normalises over space, as MAISI's decoder does, has faint ones.)
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.errors import OnProgress
from napari_meduet.models.files import Model
from napari_meduet.pipelines.encoding import PreparedScan, finite
from napari_meduet.pipelines.interruption import interruptible

SLAB_BUDGET_BYTES = 512 * 2**20
SCORE_COPIES = 3  # of what a head writes, alive at once
FLOAT_BYTES = 4


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
    stride, halo, depth = model.tokenizer.stride, _halo(network), features.shape[-1]
    first = scan.before[2]
    last = depth * stride - scan.after[2]  # both in voxels of the padded working volume
    columns = tuple(
        slice(low, side * stride - high)
        for low, high, side in zip(scan.before[:2], scan.after[:2], features.shape[1:3], strict=True)
    )
    layers = slab_layers(model, network, (features.shape[1], features.shape[2]))
    device = next(network.parameters()).device
    done = 0.0

    def report() -> None:
        on_progress(done, "deciding")

    with interruptible(network.head, report):
        for start in range(first // stride, -(-last // stride), layers):
            stop = min(start + layers, depth)
            low, high = max(0, start - halo), min(depth, stop + halo)
            scores = network.head(features[None, ..., low:high].to(device))[0].float().cpu()
            finite(scores, "deciding")
            for layer in range(start, stop):
                done = (layer - first // stride) / (depth - first // stride)
                report()
                top, bottom = max(layer * stride, first), min((layer + 1) * stride, last)
                if top < bottom:
                    yield scores[:, *columns, top - low * stride : bottom - low * stride].numpy()


def slab_layers(model: Model, network: LatentUNETR, sides: tuple[int, int]) -> int:
    """How many latent layers of scores the head makes at once, of so many latent voxels each."""
    halo, (x, y) = _halo(network), sides
    affordable = SLAB_BUDGET_BYTES // (x * y * head_bytes(model, network))
    return max(affordable - 2 * halo, halo, 1)


def slab_bytes(model: Model, network: LatentUNETR, sides: tuple[int, int]) -> int:
    """What the head takes of memory at once."""
    x, y = sides
    layers = slab_layers(model, network, sides) + 2 * _halo(network)
    return layers * x * y * head_bytes(model, network)


def head_bytes(model: Model, network: LatentUNETR) -> int:
    """Working memory of the head for a latent voxel: that of the decoder it is like, and the scores."""
    scores = FLOAT_BYTES * network.config.num_classes * model.tokenizer.stride**3
    return model.tokenizer.bytes_per_latent_voxel + SCORE_COPIES * scores


def _halo(network: LatentUNETR) -> int:
    halo = network.head.halo
    assert isinstance(halo, int), "a head says how far it looks"
    return halo

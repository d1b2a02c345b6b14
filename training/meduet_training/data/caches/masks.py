"""Label maps on the latent grid, computed once for the training of a ControlNet (specification, M-40).

One safetensors file for each scan, beside its factors, holds the fraction of every label in each latent
voxel. `sources/control.py` maps the labels to the classes of a model.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.data.cohort.scan import Scan, read_scan
from meduet_training.data.labels.names import BACKGROUND
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.pipelines.common.labels import class_shares, labels_on
from napari_meduet.volumes.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class MaskEntry:
    """The label map of one scan.

    Attributes:
        path: the file.
        names: name of each label, in the order of the channels; the name of label 0 is "background".
        labels: number of each label, in the order of the channels.
    """

    path: Path
    names: tuple[str, ...]
    labels: tuple[int, ...]

    def read(self, corner: tuple[int, int, int], size: tuple[int, int, int]) -> Float[Tensor, "K x y z"]:
        """Return the fraction of each label in a crop; corner and size are in latent voxels."""
        x, y, z = (slice(start, start + count) for start, count in zip(corner, size, strict=True))
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice("shares")[:, x, y, z].float()


@torch.inference_mode()
def cached_mask(model: Model, scan: Scan, factors: FactorEntry, names: dict[int, str]) -> MaskEntry:
    """Return the label map of a scan; a missing file is made beside the factors of the scan.

    Args:
        names: name of each label number.

    Raises:
        InputError: the labels cannot be read, or are on another grid than the scan.
    """
    assert scan.labels_path is not None, "only scans with labels have masks"
    if not scan.labels_path.is_file():
        raise InputError(
            f"{scan.labels_path.name}: the manifest names this label file, but it does not exist."
        )
    status = scan.labels_path.stat()
    text = f"{factors.key} {scan.labels_path.name} {status.st_size} {status.st_mtime_ns}"
    path = factors.path.with_suffix(f".{hashlib.sha256(text.encode()).hexdigest()[:16]}.mask")
    labels = _labels_in(path)
    if labels is None:
        prepared = prepare_scan(model, read_scan(scan))
        found = labels_on(prepared.volume, scan.labels_path)
        labels = tuple(sorted({0, *np.unique(found).tolist()}))
        if labels[0] < 0:
            raise InputError(f"{scan.labels_path.name}: labels are 0 or more; this file holds {labels[0]}.")
        shares = class_shares(model, prepared, found, labels)
        with write_atomically(path, overwrite=True) as temporary:
            metadata = {"labels": " ".join(map(str, labels))}
            save_file({"shares": shares.half().contiguous()}, temporary, metadata)
    called = (BACKGROUND if label == 0 else names.get(label, f"label {label}") for label in labels)
    return MaskEntry(path=path, labels=labels, names=tuple(called))


def _labels_in(path: Path) -> tuple[int, ...] | None:
    """Return the labels of the existing file, or None if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return tuple(int(label) for label in (file.metadata() or {})["labels"].split())
    except (SafetensorError, OSError, KeyError, ValueError):
        return None

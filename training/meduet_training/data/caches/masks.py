"""What class lies where in the latents of whole scans, computed once for a ControlNet (M-40).

One safetensors file a scan, beside its factors: the share of every label that the scan's label file holds, in
each voxel of its latent. Which class of a model a label is, is decided where it is read.
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
    """One scan of the cache.

    Attributes:
        names: of each label in it, in the order of its channels; that of 0 is "background".
    """

    path: Path
    names: tuple[str, ...]
    labels: tuple[int, ...]

    def read(self, corner: tuple[int, int, int], size: tuple[int, int, int]) -> Float[Tensor, "K x y z"]:
        """A crop, by its latent voxels: the share of each label."""
        x, y, z = (slice(start, start + count) for start, count in zip(corner, size, strict=True))
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice("shares")[:, x, y, z].float()


@torch.inference_mode()
def open_mask(model: Model, scan: Scan, factors: FactorEntry, names: dict[int, str]) -> MaskEntry:
    """The entry of a scan's labels beside its factors, made unless it is there.

    Raises:
        InputError: the labels cannot be read, or lie on another grid than the scan.
    """
    assert scan.labels_path is not None, "only scans with labels have masks"
    if not scan.labels_path.is_file():
        raise InputError(f"{scan.labels_path.name}: there is no such file of labels, but the list names it.")
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
            words = {"labels": " ".join(map(str, labels))}
            save_file({"shares": shares.half().contiguous()}, temporary, words)
    called = (BACKGROUND if label == 0 else names.get(label, f"label {label}") for label in labels)
    return MaskEntry(path=path, labels=labels, names=tuple(called))


def _labels_in(path: Path) -> tuple[int, ...] | None:
    """The labels of the entry that is there; None where there is none that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return tuple(int(label) for label in (file.metadata() or {})["labels"].split())
    except (SafetensorError, OSError, KeyError, ValueError):
        return None

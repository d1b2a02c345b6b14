"""Which structure every voxel of a scan belongs to, on the scan's own grid (specification, section 10).

    scan -> working grid -> latent -> windows -> blended features -> scores, slab by slab -> classes

Each region is encoded once. Windows overlap by half. Their features are blended on the latent grid, which has
64 times fewer points than the voxel grid, with weights that favour the middle of each window
(core/sliding_windows.py). The head then reads the blended features of the whole scan (score_slabs.py), and
the classes are decided plane by plane on the scan's own grid (volumes/preparation.py).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Header
from PIL import Image
from torch import Tensor

from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.core.sliding_windows import OVERLAP, Position, WindowBlend, cut_window, window_positions
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.card import SEGMENTER_FILE, MaskClass
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import scans_read
from napari_meduet.pipelines.common.encoding import (
    WINDOWS_AT_ONCE,
    PreparedScan,
    encode_latent,
    finite,
    prepare_scan,
)
from napari_meduet.pipelines.common.interruption import interruptible
from napari_meduet.pipelines.common.labels import check_same_grid
from napari_meduet.pipelines.common.memory import check_segmentation_memory
from napari_meduet.pipelines.common.progress import null_progress, parts
from napari_meduet.pipelines.common.provenance import provenance
from napari_meduet.pipelines.common.score_slabs import score_slabs, without_air
from napari_meduet.pipelines.factors import doubts_about, read_scan
from napari_meduet.pipelines.requests import SegmentRequest
from napari_meduet.pipelines.segmentation.label_cleaning import keep_largest_parts
from napari_meduet.pipelines.segmentation.label_overlay import overlay_picture
from napari_meduet.pipelines.segmentation.label_statistics import LabelVolume, label_volumes, voxel_volume_ml
from napari_meduet.volumes.files import write_volume
from napari_meduet.volumes.volume import Volume

MADE_BY = b"segmentation, made by napari-meduet"
MILLIMETRES = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationResult:
    """The structures in a scan.

    Attributes:
        labels: (X, Y, Z) on the scan's own grid, 0 where no structure is.
        names: of every label a voxel could have but 0, found or not.
        statistics: of the same labels.
        volume: the scan.
        warnings: what is doubtful, one sentence each.
    """

    labels: np.ndarray
    names: dict[int, str]
    statistics: dict[int, LabelVolume]
    volume: Volume
    provenance: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def volumes_ml(self) -> dict[int, float]:
        """What each label fills: its voxels times the volume of one, on the scan's own grid."""
        return {label: found.volume_ml for label, found in self.statistics.items()}

    def label_volume(self) -> Volume:
        """The labels as a volume in the scan's place."""
        header = Nifti1Header() if self.volume.header is None else self.volume.header.copy()
        if self.volume.header is None:
            header["xyzt_units"] = MILLIMETRES
        header["cal_min"] = header["cal_max"] = 0  # they were the scan's window
        header.set_intent("label")
        header["descrip"] = MADE_BY
        return replace(
            self.volume,
            voxels=self.labels,
            slope=1.0,
            intercept=0.0,
            unit="label",
            sha256="",
            header=header,
            synthetic=self.provenance,
        )

    def overlay(self) -> Image.Image:
        """Three planes of the scan with its labels over them, and a legend."""
        return overlay_picture(self.volume, self.labels, self.names, self.statistics)

    def statistics_record(self) -> dict[str, Any]:
        """What there is of every label, as plain data."""
        return {
            "spacing_mm": list(self.volume.spacing_mm),
            "voxel_volume_ml": voxel_volume_ml(self.volume.affine),
            "labels": {
                str(label): {
                    "name": name,
                    "num_voxels": self.statistics[label].num_voxels,
                    "volume_ml": self.statistics[label].volume_ml,
                }
                for label, name in self.names.items()
            },
            "sources": self.provenance["Sources"],
            "model_sha256": self.provenance["model"]["sha256"],
            "warnings": list(self.warnings),
        }

    def save(
        self,
        path: Path | str,
        *,
        overlay: Path | None = None,
        statistics: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write the labels as NIfTI, their provenance inside and beside them: every file, or none.

        Args:
            overlay: of a PNG picture to write too.
            statistics: of a JSON file to write too.

        Raises:
            InputError: a file is there already, or cannot be written.
        """
        beside = {}
        if overlay is not None:
            picture = BytesIO()
            self.overlay().save(picture, format="PNG")
            beside[overlay] = picture.getvalue()
        if statistics is not None:
            beside[statistics] = (json.dumps(self.statistics_record(), indent=2) + "\n").encode()
        write_volume(
            path, self.label_volume(), provenance=self.provenance, overwrite=overwrite, beside=beside
        )


@torch.inference_mode()
def segment(request: SegmentRequest, on_progress: OnProgress = null_progress) -> SegmentationResult:
    """The structures that the model's segmenter knows, in a scan.

    Raises:
        InputError: the model has no segmenter, or not for such a scan; the scan shows no body, is too small
            or too large for the memory that is free; numbers were no longer finite.
    """
    reading, segmenting = parts(on_progress, 2, 98)
    reading(0.0, "reading the model")
    model = load_segmenting_model(request.model, request.device)
    assert model.segmenter is not None
    assert model.card.segmenter is not None
    reading(0.5, "reading the scan")
    volume = read_scan(request.scan, request.choice)
    together = [read_scan(scan, request.choice) for scan in request.together]
    for each in (volume, *together):
        if each.modality not in model.card.segmenter.modalities:
            raise InputError(
                f"The segmenter of {model.card.name} knows {' and '.join(model.card.segmenter.modalities)} "
                f"scans; this scan is {each.modality}. Choose another model, or give the right modality."
            )
    return segment_volume(
        model,
        model.segmenter,
        model.card.segmenter.classes,
        volume,
        together=together,
        segmenter_sha256=model.card.files[SEGMENTER_FILE].sha256,
        largest_parts=request.largest_parts,
        on_progress=segmenting,
    )


def load_segmenting_model(path: str | Path | None, device: str) -> Model:
    """A model with a segmenter.

    Raises:
        InputError: it cannot be read, or has none.
    """
    model = load_model(path, device)
    if model.segmenter is None:
        raise InputError(
            f"The model {model.card.name} has no segmenter. Choose another model, or train a segmenter for "
            "it (meduet-train segmenter, or Teach in napari)."
        )
    return model


@torch.inference_mode()
def segment_volume(
    model: Model,
    network: LatentUNETR,
    classes: Sequence[MaskClass],
    volume: Volume,
    *,
    together: Sequence[Volume] = (),
    segmenter_sha256: str | None = None,
    largest_parts: bool = False,
    on_progress: OnProgress = null_progress,
) -> SegmentationResult:
    """The structures that any segmenter on the model's latents finds in a scan.

    Args:
        classes: what each output of the network scores, the background first.
        together: the patient's other sequences, for a network that reads several.
        segmenter_sha256: of its weights; None while they are on no disk.

    Raises:
        InputError: as `segment`.
    """
    preparing, segmenting, finishing = parts(on_progress, 4, 94, 2)
    volumes = (volume, *together)
    check_same_grid(volumes)
    check_segmentation_memory(model, network, volume, largest_parts=largest_parts)
    preparing(0.0, "preparing")
    prepared = [prepare_scan(model, each) for each in volumes]
    indices = segment_prepared(model, network, prepared, segmenting)

    finishing(0.0, "measuring volumes")
    labels = _numbered(indices, [each.label for each in classes])
    if largest_parts:
        keep_largest_parts(labels)
    names = {each.label: each.name for each in classes[1:]}
    statistics = label_volumes(labels, volume.affine, names)
    warnings = tuple(doubt for each in volumes for doubt in doubts_about("scan", each))
    warnings += tuple(doubt for each in prepared for doubt in each.doubts)
    if not any(found.num_voxels for found in statistics.values()):
        warnings += ("None of the structures that the segmenter knows was found.",)
    record = provenance(
        kind="segmentation",
        modality=volume.modality,
        is_synthetic=False,
        sources=[("scan", each.sha256) for each in volumes],
        model=model,
        parameters={
            "segmenter_sha256": segmenter_sha256,
            "largest_parts": largest_parts,
            "overlap": OVERLAP,
            "window": [
                length * stride
                for length, stride in zip(
                    network.config.latent_shape[1:], model.tokenizer.stride, strict=True
                )
            ],
        },
        warnings=warnings,
    )
    record["labels"] = {str(label): name for label, name in names.items()}
    record["volumes_ml"] = {str(label): found.volume_ml for label, found in statistics.items()}
    finishing(1.0, "done")
    return SegmentationResult(
        labels=labels,
        names=names,
        statistics=statistics,
        volume=volume,
        provenance=record,
        warnings=warnings,
    )


@torch.inference_mode()
def segment_prepared(
    model: Model,
    network: LatentUNETR,
    prepared: Sequence[PreparedScan],
    on_progress: OnProgress = null_progress,
) -> np.ndarray:
    """The class of every voxel (X, Y, Z) of the scan's own grid, counted as the network counts them.

    Args:
        network: a segmenter on the model's latents, its own or another.
        prepared: the scan, or the sequences of a patient that the network reads together, on one grid.

    Raises:
        InputError: the network reads more or fewer scans at once; the scan shows no body or is too small;
            numbers were no longer finite.
    """
    _check_scans(model, network, prepared)
    encoding, looking, deciding = parts(on_progress, 10 * len(prepared), 60, 30)
    latents = [
        encode_latent(model, scan, stage)[0]
        for scan, stage in zip(prepared, parts(encoding, *[1] * len(prepared)), strict=True)
    ]
    features = blended_features(network, torch.cat([model.standardised(each) for each in latents]), looking)
    slabs = score_slabs(model, network, features, prepared[0], deciding)
    slabs = without_air(slabs, prepared[0].air)
    return prepared[0].grid.labels_from_scores(slabs, network.config.num_classes)


def blended_features(
    network: LatentUNETR, latent: Float[Tensor, "C x y z"], on_progress: OnProgress
) -> Float[Tensor, "F x y z"]:
    """What the head reads, of a whole scan: the features of windows, blended where they overlap."""
    size: Position = network.config.latent_shape[1:]
    x, y, z = latent.shape[1:]
    missing = [max(0, side - length) for length, side in zip((x, y, z), size, strict=True)]
    if any(missing):  # a network of larger windows than the model's
        ends = [amount for side in reversed(missing) for amount in (0, side)]
        latent = F.pad(latent[None], ends, mode="replicate")[0]
    sides = latent.shape[1], latent.shape[2], latent.shape[3]
    positions = window_positions(sides, size, OVERLAP)
    blend = WindowBlend(network.config.features, sides, size)
    device = next(network.parameters()).device
    done = 0.0

    def report() -> None:
        on_progress(done, "looking at the scan")

    with interruptible(network, report):
        for first in range(0, len(positions), WINDOWS_AT_ONCE):
            done = first / len(positions)
            batch = positions[first : first + WINDOWS_AT_ONCE]
            windows = torch.stack([cut_window(latent, position, size) for position in batch])
            features = network.features(windows.to(device)).float().cpu()
            for position, window in zip(batch, features, strict=True):
                blend.add(position, window)
    on_progress(1.0, "looking at the scan")
    return finite(blend.blended(), "looking at the scan")[:, :x, :y, :z]


def _check_scans(model: Model, network: LatentUNETR, scans: Sequence[PreparedScan]) -> None:
    wanted = scans_read(network, model)
    if wanted != len(scans):
        order = model.card.segmenter.sequences if model.card.segmenter else ()
        named = f" ({', '.join(order)})" if order else ""
        raise InputError(
            f"This segmenter reads {wanted} scan{'s' * (wanted > 1)} of a patient{named} at once, and "
            f"{len(scans)} {'was' if len(scans) == 1 else 'were'} given. Give so many, in its order (meduet "
            "segment --with), or choose another model."
        )
    prepared = scans[0]
    least = max(model.token_voxels) * model.card.working_spacing_mm
    sides = [
        size * spacing
        for size, spacing in zip(prepared.volume.voxels.shape, prepared.volume.spacing_mm, strict=True)
    ]
    if min(sides) < least:
        raise InputError(
            f"This scan measures {' x '.join(f'{side:.0f}' for side in sides)} mm; a segmenter needs at "
            f"least {least:.0f} mm along each axis. Choose a scan that shows more."
        )
    if not any(scan.body.any() for scan in scans):
        raise InputError("This scan shows no body: nothing in it is brighter than air. Check the file.")


def _numbered(indices: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """Classes by the numbers they have in label files; the array is changed where its type holds them."""
    table = np.array(numbers).astype(np.promote_types(indices.dtype, np.min_scalar_type(max(numbers))))
    labels = indices.astype(table.dtype, copy=False)
    for plane in labels.T:
        plane[...] = table[plane]
    return labels

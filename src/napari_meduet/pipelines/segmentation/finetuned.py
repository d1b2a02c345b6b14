"""What was taught on the spot: a segmenter that labels other scans, and can be kept as a model folder.

How it is taught is `finetuning.py`'s business.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.card import SEGMENTER_FILE, MaskClass, Modality
from napari_meduet.models.model import Model
from napari_meduet.models.saving import copy_model, save_segmenter
from napari_meduet.models.weights import packed_half
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.pipelines.factors import read_scan
from napari_meduet.pipelines.requests import Scan, ScanChoice
from napari_meduet.pipelines.segmentation.session import SegmentationResult, segment_volume
from napari_meduet.volumes.safe_open import reason

ANY_CHOICE = ScanChoice()


@dataclass(frozen=True, kw_only=True)
class TaughtSoFar:
    """A point of the curve.

    Attributes:
        loss: mean over the steps since the last point.
        dice: of what would be predicted now in the last step's crops, mean over the structures they show;
            None where they show none.
        seconds: since the first step.
    """

    step: int
    loss: float
    dice: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Taught:
    """A segmenter that was taught.

    Attributes:
        classes: what each output scores, the background first.
        steps: so many were taken.
        training: what the card says of how it was made.
    """

    model: Model
    model_folder: Path
    network: LatentUNETR
    classes: tuple[MaskClass, ...]
    modalities: tuple[Modality, ...]
    steps: int
    training: dict[str, Any]

    @torch.inference_mode()
    def segment(
        self,
        scan: Scan,
        *,
        choice: ScanChoice = ANY_CHOICE,
        largest_parts: bool = False,
        on_progress: OnProgress = null_progress,
    ) -> SegmentationResult:
        """The structures in a scan.

        Raises:
            InputError: as `segmentation.segment`.
        """
        volume = read_scan(scan, choice)
        if volume.modality not in self.modalities:
            raise InputError(
                f"This segmenter was taught on {' and '.join(self.modalities)} scans; this scan is "
                f"{volume.modality}. Teach one on such scans."
            )
        return segment_volume(
            self.model,
            self.network,
            self.classes,
            volume,
            segmenter_sha256=self.sha256,
            largest_parts=largest_parts,
            on_progress=on_progress,
        )

    @cached_property
    def sha256(self) -> str:
        """The digest of its weights, which is that of the file they are saved as."""
        return hashlib.sha256(packed_half(self.network.state_dict())).hexdigest()

    def save(self, folder: Path | str, name: str = "") -> None:
        """Write a model folder, all of it or nothing: the model it was taught on, with this segmenter.

        Raises:
            InputError: the folder exists and is not empty, or it cannot be written.
        """
        target = Path(folder)
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise InputError(f"{target.name}: exists already and is not empty; choose another folder.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".taught-", dir=target.parent) as temporary:
                whole = Path(temporary) / target.name
                copy_model(self.model_folder, whole, without={SEGMENTER_FILE}, name=name)
                save_segmenter(
                    whole,
                    self.network.config,
                    self.network.state_dict(),
                    self.classes,
                    self.modalities,
                    self.training,
                )
                whole.replace(target)
        except OSError as error:
            raise InputError(f"{target.name}: no model can be written there ({reason(error)}).") from error

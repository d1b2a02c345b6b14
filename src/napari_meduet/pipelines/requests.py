"""The questions a person can ask, as frozen records (SPEC sections 7-8).

A request refuses what cannot work the moment it is made, so that a form or a command can say so before
anything is read. Nothing here needs torch: menus and `--help` open at once. How a question is answered is its
pipeline's
business: `factors.py`, `restyling.py`, `reconstruction.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from napari_meduet.errors import InputError
from napari_meduet.models.devices import DEVICES
from napari_meduet.volumes.volume import Volume

Mode = Literal["shift", "prototype", "adain", "token"]
Decode = Literal["residual", "full"]
Through = Literal["tokenizer", "meduet"]
STRENGTH_RANGE = (-0.5, 1.5)  # SPEC section 8; outside [0, 1] the style is extrapolated, with a warning

Scan = str | Path | Volume


def _one_of(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{field} must be one of {', '.join(choices)}; got {value!r}.")


def check_strength(strength: float) -> None:
    """Refuse a strength outside the range in which the style mixture still means something."""
    low, high = STRENGTH_RANGE
    if not (math.isfinite(strength) and low <= strength <= high):
        raise InputError(
            f"strength must lie between {low} and {high} (0 leaves the scan as it is, 1 is the whole style); "
            f"got {strength}."
        )


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What every request says of the model.

    Attributes:
        model: the folder of a model; None is the embedded one.
        device: auto, cpu, cuda or mps.
    """

    model: str | Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        _one_of("device", self.device, DEVICES)


@dataclass(frozen=True, kw_only=True)
class ScanChoice:
    """Which volume of a file is meant, where the file leaves a choice.

    Attributes:
        volume_index: which volume of a 4-D file.
        series: which series of a DICOM folder, as `list_series` numbers them.
        modality: CT or MR, where the file does not say and the values would be guessed from.
    """

    volume_index: int | None = None
    series: str | None = None
    modality: str | None = None

    def __post_init__(self) -> None:
        if self.modality is not None:
            _one_of("modality", self.modality, ("CT", "MR"))
        if self.volume_index is not None and self.volume_index < 0:
            raise InputError(f"volume_index counts from 0; got {self.volume_index}.")


@dataclass(frozen=True, eq=False)
class SwapRequest(ModelChoice):
    """Give one scan the style of another. Eq. 26 and SPEC section 8.

    Attributes:
        content: the scan whose anatomy stays.
        style: the scan, or the `.style` prototype, whose look is taken over.
        mode: how style tokens of another scan are applied: moved by the difference of the means (shift),
            replaced by the mean (prototype), moved and scaled (adain), or copied place by place (token: equal
            grids only).
        strength: 0 leaves the scan as it is, 1 is the whole style.
        decode: residual adds the decoded difference to the scan; full returns what the network decodes.
        texture: also move noise and sharpness, which no latent carries, towards the style's.
        seed: draws the points at which edges are compared for the safety report.
        labels: integers on the content's voxel grid, or a file of them; the report says how far the values
            under each label drift.
        content_choice: which volume of the content's file.
        style_choice: which volume of the style's file.
    """

    content: Scan
    style: Scan
    _: KW_ONLY
    mode: Mode = "shift"
    strength: float = 1.0
    decode: Decode = "residual"
    texture: bool = True
    seed: int = 0
    labels: str | Path | np.ndarray | None = None
    content_choice: ScanChoice = ScanChoice()
    style_choice: ScanChoice = ScanChoice()

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("mode", self.mode, get_args(Mode))
        _one_of("decode", self.decode, get_args(Decode))
        check_strength(self.strength)
        if isinstance(self.labels, np.ndarray) and (
            self.labels.ndim != 3 or not np.issubdtype(self.labels.dtype, np.integer)
        ):
            raise InputError(
                f"labels must be a 3-D array of integers on the content's grid; got {self.labels.ndim}-D "
                f"{self.labels.dtype}."
            )


@dataclass(frozen=True, eq=False)
class ExtractRequest(ModelChoice):
    """Ask for the factors of scans: pooled content and style, and their token grids (M-21).

    Attributes:
        keep_names: keep the files' names in what is written; names of files may name patients.
    """

    scans: Sequence[Scan]
    _: KW_ONLY
    keep_names: bool = False
    choice: ScanChoice = ScanChoice()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scans:
            raise InputError("scans is empty: name at least one scan.")


@dataclass(frozen=True, eq=False)
class PrototypeRequest(ModelChoice):
    """Ask for the style that scans of one scanner or site share. Eq. 25."""

    scans: Sequence[Scan]
    _: KW_ONLY
    choice: ScanChoice = ScanChoice()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scans:
            raise InputError("scans is empty: name at least one scan.")


@dataclass(frozen=True, eq=False)
class RoundtripRequest(ModelChoice):
    """Ask what a scan looks like after decode(encode(scan)).

    Attributes:
        through: the tokenizer alone, or tokenizer and MeDUET.
    """

    scan: Scan
    _: KW_ONLY
    through: Through = "tokenizer"
    choice: ScanChoice = ScanChoice()

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("through", self.through, get_args(Through))

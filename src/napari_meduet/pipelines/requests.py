"""The requests of users as frozen dataclasses (specification, sections 7-10).

A request checks its values when it is created, so a form or a command can report a mistake before any file is
read. This file does not import torch, so menus and `--help` open at once. The pipelines answer the requests:
`factors.py`, `reconstruction.py`, `classification.py`, `style_swap/`, `synthesis/` and `segmentation/`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from napari_meduet.core.options import (
    GUIDANCE_WEIGHT,
    STRENGTH_RANGE,
    Anatomy,
    Decode,
    GuidanceForm,
    Precision,
    StyleMode,
    Through,
)
from napari_meduet.core.synthesis.sampler_registry import SAMPLERS, SamplerName
from napari_meduet.errors import InputError
from napari_meduet.models.devices import DEVICES
from napari_meduet.volumes.volume import Volume

MOST_STEPS = 1000  # a DiT knows no more times (Table 10)
TOKEN_VOXELS = 16  # of the working grid along a token (M-02)
MOST_TEACHING_STEPS = 10_000
LARGEST_SEED = 2**63 - 1

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


def _check_labels(field: str, labels: str | Path | np.ndarray | None) -> None:
    """Refuse an array that cannot be labels; a file is looked at when it is read."""
    if isinstance(labels, np.ndarray) and (labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer)):
        raise InputError(
            f"{field} must be a 3-D array of integers on the content's grid; got {labels.ndim}-D "
            f"{labels.dtype}."
        )


def check_weight(field: str, weight: float) -> None:
    """Refuse a weight that would guide away from what is asked for."""
    if not (math.isfinite(weight) and weight >= 0):
        raise InputError(f"{field} must be 0 (no guidance) or more; got {weight}.")


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
    """Give one scan the style of another. Eq. 26 and specification, section 8.

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
    mode: StyleMode = "shift"
    strength: float = 1.0
    decode: Decode = "residual"
    texture: bool = True
    seed: int = 0
    labels: str | Path | np.ndarray | None = None
    content_choice: ScanChoice = ScanChoice()
    style_choice: ScanChoice = ScanChoice()

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("mode", self.mode, get_args(StyleMode))
        _one_of("decode", self.decode, get_args(Decode))
        check_strength(self.strength)
        _check_labels("labels", self.labels)


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


@dataclass(frozen=True, eq=False)
class SegmentRequest(ModelChoice):
    """Ask which structure every voxel of a scan belongs to (specification, section 10).

    Attributes:
        together: the patient's other sequences, on the scan's grid, where the segmenter reads several: the
            scan and these are in its order.
        largest_parts: keep the largest connected part of each structure and nothing else of it.
    """

    scan: Scan
    _: KW_ONLY
    together: tuple[Scan, ...] = ()
    largest_parts: bool = False
    choice: ScanChoice = ScanChoice()


@dataclass(frozen=True, eq=False)
class ClassifyRequest(ModelChoice):
    """Request for the class of a scan, among those that a model's classifier knows (section 10)."""

    scan: Scan
    _: KW_ONLY
    choice: ScanChoice = ScanChoice()


@dataclass(frozen=True, eq=False)
class SynthesisRequest(ModelChoice):
    """Ask for new volumes with the content of one scan and the style of another (specification, section 9).

    Attributes:
        content: the scan whose anatomy is asked for; None: any.
        style: a scan, a `.style` prototype, or the name of a domain that the model knows; None: any.
        anatomy: same: the content of every place of the scan, around the centre of its body; similar: its
            pooled content, which fixes no place.
        mask: integers on the content's voxel grid, or a file of them, for models with a ControlNet.
        content_weight, style_weight: how far guidance moves towards each; 0 is the conditional model.
        guidance_interval: the times, from 0 (data) to 1 (noise), at which guidance works.
        steps: None takes the sampler's own number.
        start_from: a scan to begin from, with noise on it; None begins from noise alone.
        noise: how much noise `start_from` gets, from 0 (not included) to 1, which leaves nothing of it.
        size: of the result, in voxels of the working grid; None is the generator's own.
        seed: of the first volume; the next ones count on from it. None draws one, which is recorded.
        count: how many volumes.
        precision: of the network's products. int8 is faster on a CPU, bfloat16 on a GPU; both move every
            value a little.
    """

    content: Scan | None = None
    style: Scan | None = None
    _: KW_ONLY
    anatomy: Anatomy = "same"
    mask: str | Path | np.ndarray | None = None
    content_weight: float = GUIDANCE_WEIGHT
    style_weight: float = GUIDANCE_WEIGHT
    guidance: GuidanceForm = "paper"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    sampler: SamplerName = "multistep"
    steps: int | None = None
    start_from: Scan | None = None
    noise: float = 0.6
    size: tuple[int, int, int] | None = None
    seed: int | None = None
    count: int = 1
    precision: Precision = "float32"
    content_choice: ScanChoice = ScanChoice()
    style_choice: ScanChoice = ScanChoice()
    start_choice: ScanChoice = ScanChoice()

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("anatomy", self.anatomy, get_args(Anatomy))
        _one_of("guidance", self.guidance, get_args(GuidanceForm))
        _one_of("sampler", self.sampler, get_args(SamplerName))
        _one_of("precision", self.precision, get_args(Precision))
        check_weight("content_weight", self.content_weight)
        check_weight("style_weight", self.style_weight)
        self._check_times()
        self._check_numbers()
        _check_labels("mask", self.mask)
        if self.mask is not None and self.content is None:
            raise InputError("mask lies on the content's grid: give the content as well.")

    @property
    def num_steps(self) -> int:
        return self.steps or SAMPLERS[self.sampler].default_steps

    def _check_times(self) -> None:
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise InputError(
                "guidance_interval runs from one time to a later one, between 0 (data) and 1 (noise); got "
                f"{low} to {high}."
            )
        if not 0 < self.noise <= 1:
            raise InputError(
                "noise must be more than 0 and at most 1 (1 leaves nothing of the scan to start from); got "
                f"{self.noise}."
            )

    def _check_numbers(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= MOST_STEPS:
            raise InputError(f"steps must be a whole number from 1 to {MOST_STEPS}; got {self.steps}.")
        if self.count < 1:
            raise InputError(f"count is the number of volumes and at least 1; got {self.count}.")
        if self.seed is not None and not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed must be a whole number from 0 to {LARGEST_SEED}; got {self.seed}.")
        if self.size is not None and (
            len(self.size) != 3 or any(side < 1 or side % TOKEN_VOXELS for side in self.size)
        ):
            raise InputError(
                f"size needs three multiples of {TOKEN_VOXELS} (voxels of the working grid, a token each); "
                f"got {' '.join(map(str, self.size))}."
            )


@dataclass(frozen=True, eq=False)
class TeachRequest(ModelChoice):
    """Ask for a segmenter that learns from a few labelled scans, on the spot (specification, section 10).

    Attributes:
        examples: scans, each with its labels: integers on the scan's voxel grid, or a file of them.
        names: of the numbers that are to be learnt; others are background.
        background: where only strokes were painted, the number that stands for background; what is 0 is then
            unknown. None: whole structures were painted, and what is 0 is background.
        steps: of the training.
        seed: draws poses, crops and first weights.
    """

    examples: Sequence[tuple[Scan, str | Path | np.ndarray]]
    names: Mapping[int, str]
    _: KW_ONLY
    background: int | None = None
    steps: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.examples:
            raise InputError("There is no example: give at least one scan with labels.")
        for _, labels in self.examples:
            _check_labels("labels", labels)
        wrong = [number for number in self.names if number < 1 or number == self.background]
        if wrong or not self.names:
            raise InputError(
                "names need at least one structure, each with a number of 1 or more that is not the "
                f"background's; got {', '.join(map(str, self.names)) or 'none'}."
            )
        if not all(name.strip() for name in self.names.values()):
            raise InputError("Each structure needs a name; one is empty.")
        if len(set(self.names.values())) < len(self.names):
            raise InputError("Two structures have the same name; give each a name of its own.")
        if self.background is not None and self.background < 1:
            raise InputError(f"background is a number that was painted, 1 or more; got {self.background}.")
        if not 1 <= self.steps <= MOST_TEACHING_STEPS:
            raise InputError(
                f"steps must be a whole number from 1 to {MOST_TEACHING_STEPS}; got {self.steps}."
            )

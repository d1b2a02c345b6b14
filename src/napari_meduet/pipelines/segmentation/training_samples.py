"""Training samples of a segmenter: latents with the class of every voxel (specification, section 10).

Latents are made once and crops drawn many times. A scan may be made into an example in several *poses*,
turned and scaled a little before it is encoded: where few scans have labels that is where variety comes from,
and no latent can be turned by an odd angle. Who labelled what is told by a `LabelMap`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor

from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.core.sliding_windows import Position, cut_window
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import (
    PreparedScan,
    encode_posterior,
    padded_body,
    padding_amounts,
)
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.volumes.volume import Modality

LARGEST_TURN = 12.0  # degrees about each axis
SCALES = (0.85, 1.2)
TONES = (0.0, 0.25, 0.5, 0.75, 1.0)  # profile units
LARGEST_SHIFTS: dict[Modality, float] = {"CT": 0.1, "MR": 0.3}  # of a tone; CT is calibrated, and air stays
FOREGROUND_SHARE = 0.7  # of the crops are drawn around a voxel of a class
BLOCK = 12  # latent voxels, 72 mm: of each crop so much is learnt at a time; the rest is context
MODALITIES = ("CT", "MR")  # their numbers in a batch and in a bank of styles
PLACES_KEPT = 4096  # voxels of each class that crops may be drawn around


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """What the numbers in a scan's labels mean.

    Attributes:
        classes: the class of each number; numbers that are not named are background.
        annotated: of each class, whether somebody looked for it in this scan; the background's is True.
        ignored: numbers of voxels where nobody looked.
    """

    classes: Mapping[int, int]
    annotated: tuple[bool, ...]
    ignored: frozenset[int] = frozenset()

    def target(self, labels: np.ndarray) -> np.ndarray:
        """The class of each voxel, uint8, `IGNORED` where nobody looked."""
        numbers, places = np.unique(labels, return_inverse=True)
        classes = [IGNORED if n in self.ignored else self.classes.get(n, 0) for n in numbers.tolist()]
        return np.array(classes, np.uint8)[places.reshape(labels.shape)]


@dataclass(frozen=True, kw_only=True)
class SpatialAugmentation:
    """A scan turned and scaled about its centre, in other tones.

    Attributes:
        degrees: about x, y and z, in this order.
        scale: of what is shown; more than 1 is larger.
        tones: what the profile units `TONES` become, those between them linearly: a contrast agent, another
            sequence, move tissues against each other.
    """

    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    tones: tuple[float, ...] = TONES

    @classmethod
    def drawn(cls, generator: Generator, modality: Modality) -> "SpatialAugmentation":
        """A pose that a patient might be scanned in."""
        *turns, size = torch.rand(4, generator=generator).tolist()
        low, high = SCALES
        x, y, z = (LARGEST_TURN * (2 * turn - 1) for turn in turns)
        shifts = LARGEST_SHIFTS[modality] * (2 * torch.rand(len(TONES) - 1, generator=generator) - 1)
        tones = (torch.tensor(TONES[1:]) + shifts).clamp(0, 1).sort().values.tolist()
        return cls(degrees=(x, y, z), scale=low * (high / low) ** size, tones=(0.0, *tones))

    @property
    def is_own(self) -> bool:
        """Whether nothing is moved."""
        return self == SpatialAugmentation()

    def matrix(self) -> Float[Tensor, "3 3"]:
        """From places in the posed scan to those in the scan, both in voxels from the centre."""
        turned = torch.eye(3)
        for axis, degrees in enumerate(self.degrees):
            angle = torch.deg2rad(torch.tensor(degrees))
            one, other = (each for each in range(3) if each != axis)
            turn = torch.eye(3)
            turn[one, one] = turn[other, other] = angle.cos()
            turn[one, other], turn[other, one] = -angle.sin(), angle.sin()
            turned = turned @ turn
        return turned / self.scale


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSample:
    """A labelled scan.

    Attributes:
        mean, log_variance: of its latent, standardised.
        body: share of body in each latent voxel.
        target: class of each voxel of the padded working grid, `IGNORED` where nobody looked.
        annotated: the classes that somebody looked for.
        modality: CT or MR.
    """

    mean: Float[Tensor, "C x y z"]
    log_variance: Float[Tensor, "C x y z"]
    body: Float[Tensor, "x y z"]
    target: UInt8[Tensor, "X Y Z"]
    annotated: Bool[Tensor, " K"]
    modality: str

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes in it but the background."""
        return tuple(k for k in np.unique(self.target.numpy()).tolist() if k not in (0, IGNORED))

    @cached_property
    def places(self) -> list[np.ndarray]:
        """Some voxels (N, 3) of each of its classes, evenly spread."""
        found = (np.argwhere(self.target.numpy() == label) for label in self.classes)
        return [places[:: max(1, len(places) // PLACES_KEPT)] for places in found]


def make_example(
    model: Model,
    scan: PreparedScan,
    labels: np.ndarray,
    meaning: LabelMap,
    pose: SpatialAugmentation = SpatialAugmentation(),
    on_progress: OnProgress = null_progress,
    *,
    may_be_empty: bool = False,
) -> TrainingSample:
    """A prepared scan and its labels (native grid) as networks learn from them.

    Where nobody looked, the air around the body is background all the same: strokes alone leave a network
    free to say anything there.

    Args:
        may_be_empty: somebody looked for the classes and there may be none, as in a scan without a tumour.

    Raises:
        InputError: nothing in the labels is a class, though something must be.
    """
    target = meaning.target(scan.grid.labels_to_working(labels))
    if meaning.ignored:
        target[(target == IGNORED) & scan.air] = 0
    if not (may_be_empty or ((target != 0) & (target != IGNORED)).any()):
        raise InputError(
            "These labels show none of the classes that are to be learnt. Give labels of the same scan, with "
            "at least one structure in them, or other names."
        )
    amounts = padding_amounts(scan)
    padded = F.pad(torch.from_numpy(target)[None], amounts, value=IGNORED)[0]
    units = F.pad(torch.from_numpy(scan.units)[None, None], amounts, mode="replicate")
    body = padded_body(scan)
    if not pose.is_own:
        padded = posed(padded[None, None].float(), pose, "nearest", outside=IGNORED)[0, 0].to(torch.uint8)
        units = posed(units, pose, "bilinear")
        units = torch.from_numpy(np.interp(units.numpy(), TONES, pose.tones).astype(np.float32))
        body = posed(body, pose, "nearest", outside=0.0)
    mean, log_variance = encode_posterior(model, units, on_progress)
    return TrainingSample(
        mean=mean,
        log_variance=log_variance,
        body=F.avg_pool3d(body, model.tokenizer.stride)[0, 0],
        target=padded,
        annotated=torch.tensor(meaning.annotated),
        modality=scan.volume.modality,
    )


def posed(
    volume: Float[Tensor, "1 1 X Y Z"], pose: SpatialAugmentation, mode: str, outside: float | None = None
) -> Float[Tensor, "1 1 X Y Z"]:
    """A volume in a pose, on the same grid; its border goes on outside unless a value is given."""
    sides = torch.tensor(volume.shape[2:], dtype=torch.float32)
    to_source = pose.matrix() * (sides / sides.unsqueeze(1))  # grid_sample counts in half sides
    theta = torch.zeros(1, 3, 4)
    theta[0, :, :3] = to_source.flip(0, 1)  # and names the last axis first
    grid = F.affine_grid(theta, list(volume.shape), align_corners=False)
    moved = F.grid_sample(volume, grid, mode=mode, padding_mode="border", align_corners=False)
    if outside is not None:
        moved = torch.where((grid.abs() > 1).any(dim=-1).unsqueeze(1), outside, moved)
    return moved


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A window of an example, and the block in it whose voxels are learnt; in latent voxels.

    Attributes:
        corner: of the window in the example.
        block: first corner of the block in the window.
    """

    corner: Position
    block: Position


def choose_example(classes: Sequence[Sequence[int]], generator: Generator) -> tuple[int, int | None]:
    """Which example a crop is taken from, and which of its classes it is drawn around; None: anywhere.

    Each class that any example shows is as likely as every other, however few show it.

    Args:
        classes: of each example.
    """
    chance, kind, place = torch.rand(3, generator=generator).tolist()
    shown = sorted({each for of_one in classes for each in of_one})
    if chance >= FOREGROUND_SHARE or not shown:
        return int(place * len(classes)), None
    chosen = shown[int(kind * len(shown))]
    showing = [number for number, of_one in enumerate(classes) if chosen in of_one]
    number = showing[int(place * len(showing))]
    return number, list(classes[number]).index(chosen)


def draw_crop(
    example: TrainingSample, around: int | None, size: Position, stride: Position, generator: Generator
) -> Crop:
    """A window of an example.

    Args:
        around: the block holds a voxel of this one of the example's classes, by its place among them; None:
            it lies anywhere.
    """
    sides = example.mean.shape[1:]
    draw = torch.rand(9, generator=generator).tolist()
    if around is not None:
        places = example.places[around]
        place = places[int(draw[2] * len(places))] // stride
    else:
        place = [int(at * side) for at, side in zip(draw[:3], sides, strict=True)]
    corners, blocks = [], []
    for at, side, width, first, second in zip(place, sides, size, draw[3:6], draw[6:], strict=True):
        corner = min(max(int(at - first * (width - 1)), 0), side - width)
        corners.append(corner)
        block = min(BLOCK, width)
        blocks.append(min(max(int(at - corner - second * (block - 1)), 0), width - block))
    return Crop(corner=cast(Position, tuple(corners)), block=cast(Position, tuple(blocks)))


def read_crop(
    example: TrainingSample, crop: Crop, size: Position, stride: Position, noise: Generator
) -> dict[str, Tensor]:
    """What a network learns from a crop: fields of `SegmentationBatch`, without the batch axis.

    The latent is a sample of its posterior.
    """
    mean, log_variance = (
        cut_window(each, crop.corner, size).float() for each in (example.mean, example.log_variance)
    )
    drawn = torch.randn(mean.shape, generator=noise)
    sides = [min(BLOCK, width) * step for width, step in zip(size, stride, strict=True)]
    at = [
        (corner + block) * step for corner, block, step in zip(crop.corner, crop.block, stride, strict=True)
    ]
    return {
        "latent": mean + (0.5 * log_variance).exp() * drawn,
        "target": cut_window(example.target, cast(Position, tuple(at)), cast(Position, tuple(sides))).clone(),
        "block": torch.tensor(crop.block),
        "annotated": example.annotated,
        "modality": torch.tensor(MODALITIES.index(example.modality)),
    }


def class_map(names: Mapping[int, str], classes: Mapping[str, Sequence[str]]) -> LabelMap:
    """What the numbers of a scan mean for a model.

    Args:
        names: of the numbers in the scan's labels.
        classes: of the model, without the background: the names that each goes by; a class is annotated in
            the scan if any of them is among its names.
    """
    index = {name: number for number, known in enumerate(classes.values(), start=1) for name in known}
    found = {number: index[name] for number, name in names.items() if name in index}
    present = set(found.values())
    return LabelMap(
        classes=found, annotated=(True, *(number in present for number in range(1, len(classes) + 1)))
    )

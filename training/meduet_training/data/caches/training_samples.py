"""Labelled scans as networks learn from them, each in several poses, computed once (specification, section 10).

One safetensors file for a scan in a pose: its latent, standardised, its body, the class of every voxel, and
some voxels of each class, around which crops are drawn. It is named by all that decides what is in it: model,
scan, labels, task, pose.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from meduet_training.data.cohort.scan import read_scan, scan_words
from meduet_training.data.labels.scans import LabelledScan
from meduet_training.data.labels.task import LabelTask
from meduet_training.data.sources.protocol import generator_of
from meduet_training.runtime.folders import check_writable, make_folder
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import PreparedScan, prepare_scan
from napari_meduet.pipelines.common.labels import check_same_grid, labels_on
from napari_meduet.pipelines.segmentation.training_samples import (
    LabelMap,
    SpatialAugmentation,
    TrainingSample,
    make_example,
)
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.volume import Modality

FORMAT = "2"
SUFFIX = ".example.safetensors"
MOST_NAMED = 5  # scans in one sentence
POSE_SEED = 10  # poses are the same in every run, so that they are encoded once


class UnusableScanError(InputError):
    """One scan or its labels cannot be used; others may."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredExample(TrainingSample):
    """An example whose tensors lie on the disk until they are touched; latents are in half precision."""

    kept_places: tuple[np.ndarray, ...]

    @cached_property
    def places(self) -> list[np.ndarray]:
        return list(self.kept_places)


@dataclass(frozen=True, kw_only=True)
class ExampleEntry:
    """One scan in one pose.

    Attributes:
        key: names the example in logs: a hash.
        scan: the same for all poses of a scan: a hash.
        pose: 0 is the scan's own.
        latent_shape: channels and voxels of the whole latent.
        classes: the classes after the background that are in it, by their numbers.
    """

    path: Path
    key: str
    scan: str
    pose: int
    domain: str
    modality: Modality
    latent_shape: tuple[int, int, int, int]
    classes: tuple[int, ...]

    def open(self) -> StoredExample:
        """The example itself."""
        with safe_open(self.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        places, owners = tensors["places"].numpy(), tensors["class_of_place"].numpy()
        return StoredExample(
            mean=tensors["mean"],
            log_variance=tensors["log_variance"],
            body=tensors["body"],
            target=tensors["target"],
            annotated=tensors["annotated"],
            modality=self.modality,
            kept_places=tuple(places[owners == owner] for owner in np.unique(owners)),
        )


def cache_examples(
    model: Model,
    scans: Sequence[LabelledScan],
    task: LabelTask,
    poses: Sequence[int],
    folder: Path,
    on_example: Callable[[int, int], None] = lambda number, of: None,
) -> list[ExampleEntry]:
    """Entries of all scans in all poses, scan by scan; what is in the folder already is kept.

    An entry that is damaged, or older than its scan or labels, is made again.

    Args:
        on_example: is told, before each, how many are done of how many.

    Raises:
        InputError: scans or their labels cannot be used, with their names, after all others were done; or the
            folder cannot be written.
    """
    make_folder(folder)
    check_writable(folder)
    total = len(scans) * len(poses)
    entries: list[ExampleEntry] = []
    refused: list[str] = []
    for number, scan in enumerate(scans):

        def on_pose(done: int, before: int = number * len(poses)) -> None:
            on_example(before + done, total)

        try:
            entries += _cached(model, scan, task.meaning(scan.names), poses, folder, on_pose)
        except UnusableScanError as error:
            refused.append(str(error))
    if refused:
        others = f"{len(refused)} of {len(scans)} labelled scans cannot be used. " if len(refused) > 1 else ""
        raise InputError(others + " ".join(refused[:MOST_NAMED]))
    return entries


def _cached(
    model: Model,
    scan: LabelledScan,
    meaning: LabelMap,
    poses: Sequence[int],
    folder: Path,
    on_pose: Callable[[int], None],
) -> Iterator[ExampleEntry]:
    """The entries of one scan; those that are not there are made.

    Raises:
        UnusableScanError: the scan or its labels cannot be used.
        InputError: an entry cannot be written.
    """
    prepared: tuple[list[PreparedScan], np.ndarray] | None = None
    for done, pose in enumerate(poses):
        on_pose(done)
        path = _path(folder, model, scan, meaning, pose)
        entry = _kept(path, scan, pose)
        if entry is None:
            try:
                prepared = prepared or prepared_scan(model, scan)
            except InputError as error:
                raise UnusableScanError(str(error)) from error
            _write(path, model, scan, prepared, meaning, pose)
            entry = _kept(path, scan, pose)
            assert entry is not None, "it was just written"
        yield entry


def open_examples(
    model: Model, scans: Sequence[LabelledScan], task: LabelTask, poses: Sequence[int], folder: Path
) -> list[ExampleEntry]:
    """The entries that `cache_examples` has made of these; nothing is written."""
    kept = [
        _kept(_path(folder, model, scan, task.meaning(scan.names), pose), scan, pose)
        for scan in scans
        for pose in poses
    ]
    return [entry for entry in kept if entry is not None]


def _path(folder: Path, model: Model, scan: LabelledScan, meaning: LabelMap, pose: int) -> Path:
    """Of an entry: a digest of what is the same for all poses of a scan, then one of the pose."""
    status = scan.labels_path.stat()
    words = [
        FORMAT,
        model.sha256,
        *(scan_words(replace(channel, split="train")) for channel in scan.channels),  # in any split alike
        f"{scan.labels_path.name} {status.st_size} {status.st_mtime_ns}",
        f"{sorted(meaning.classes.items())} {meaning.annotated} {sorted(meaning.ignored)}",
    ]
    return folder / f"{_digest(' '.join(words))}-{_digest(repr(_pose(pose, scan)))}{SUFFIX}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pose(number: int, scan: LabelledScan) -> SpatialAugmentation:
    """The pose of that number; 0 is the scan's own."""
    return (
        SpatialAugmentation()
        if number == 0
        else SpatialAugmentation.drawn(generator_of(POSE_SEED, number), scan.first.modality)
    )


def prepared_scan(model: Model, scan: LabelledScan) -> tuple[list[PreparedScan], np.ndarray]:
    """The scans as the tokenizer sees them, and their labels.

    Raises:
        InputError: a file cannot be used, grids differ, or there is a label that nobody named.
    """
    volumes = [read_scan(channel) for channel in scan.channels]
    try:
        check_same_grid(volumes)
    except InputError as error:
        raise InputError(f"{scan.first.path.name}: {error}") from error
    where = scan.labels_path.name
    labels = labels_on(volumes[0], scan.labels_path)
    numbers = {int(number) for number in np.unique(labels)} - {0}
    if min(numbers, default=0) < 0:
        raise InputError(f"{where}: labels are 0 or more; this file holds {min(numbers)}.")
    if unnamed := sorted(numbers - scan.names.keys()):
        raise InputError(
            f"{where}: holds label {', '.join(map(str, unnamed))}, which nobody names; name it, or call it "
            "background."
        )
    return [prepare_scan(model, volume) for volume in volumes], labels


@torch.inference_mode()
def _write(
    path: Path,
    model: Model,
    scan: LabelledScan,
    prepared: tuple[list[PreparedScan], np.ndarray],
    meaning: LabelMap,
    pose: int,
) -> None:
    """Encode a scan in a pose and write its entry, whole or not at all."""
    channels, labels = prepared
    chosen = _pose(pose, scan)
    examples = [
        make_example(model, channel, labels, meaning, chosen, may_be_empty=True) for channel in channels
    ]
    first = examples[0]
    whole = replace(
        first,
        mean=torch.cat([each.mean for each in examples]),
        log_variance=torch.cat([each.log_variance for each in examples]),
        body=torch.stack([each.body for each in examples]).amax(dim=0),
    )
    places = [torch.from_numpy(found.astype(np.int16)) for found in whole.places]
    sizes = torch.tensor([len(found) for found in places], dtype=torch.long)
    tensors = {
        "mean": whole.mean.half(),
        "log_variance": whole.log_variance.half(),
        "body": whole.body.half(),
        "target": whole.target,
        "annotated": whole.annotated,
        "places": torch.cat([torch.empty(0, 3, dtype=torch.int16), *places]),
        "class_of_place": torch.tensor(whole.classes, dtype=torch.uint8).repeat_interleave(sizes),
    }
    words = {
        "format": FORMAT,
        "latent_shape": " ".join(map(str, whole.mean.shape)),
        "classes": " ".join(map(str, whole.classes)),
    }
    with write_atomically(path, overwrite=True) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, words)


def _kept(path: Path, scan: LabelledScan, pose: int) -> ExampleEntry | None:
    """The entry that is there; None where there is none that can be used."""
    newest = max(channel.path.stat().st_mtime for channel in scan.channels)
    if not path.is_file() or path.stat().st_mtime < newest:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
        channels, x, y, z = (int(number) for number in words["latent_shape"].split())
        classes = tuple(int(number) for number in words["classes"].split())
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    return ExampleEntry(
        path=path,
        key=path.name.removesuffix(SUFFIX),
        scan=path.name.split("-")[0],
        pose=pose,
        domain=scan.first.domain,
        modality=scan.first.modality,
        latent_shape=(channels, x, y, z),
        classes=classes,
    )

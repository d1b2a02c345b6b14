"""Labelled scans as training samples, each with several spatial augmentations, encoded once.

One safetensors file holds one scan with one augmentation: its standardised latent, the body, the class of
each voxel, and some voxel positions of each class, around which crops are drawn (specification, section 10).
The file name is a digest of everything that decides the content: model, scan, labels, classes, augmentation.
`sources/labelled_crops.py` draws batches from the files.
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
MOST_NAMED = 5  # scans named in one error message
POSE_SEED = 10  # augmentations are the same in every run, so each is encoded once


class UnusableScanError(InputError):
    """One scan, or its labels, cannot be used. Other scans may be usable."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSample(TrainingSample):
    """A training sample in a file. Tensors are loaded when they are used; latents have half precision."""

    kept_places: tuple[np.ndarray, ...]

    @cached_property
    def places(self) -> list[np.ndarray]:
        return list(self.kept_places)


@dataclass(frozen=True, kw_only=True)
class SampleEntry:
    """One scan with one spatial augmentation.

    Attributes:
        path: the file.
        key: digest that names the sample in logs.
        scan: digest of the scan, equal for all its augmentations.
        pose: number of the augmentation; 0 means none.
        domain, modality: as in the manifest.
        latent_shape: channels and latent voxels of the whole latent.
        classes: numbers of the classes in the sample, without the background.
    """

    path: Path
    key: str
    scan: str
    pose: int
    domain: str
    modality: Modality
    latent_shape: tuple[int, int, int, int]
    classes: tuple[int, ...]

    def open(self) -> StoredSample:
        """Return the sample."""
        with safe_open(self.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        places, owners = tensors["places"].numpy(), tensors["class_of_place"].numpy()
        return StoredSample(
            mean=tensors["mean"],
            log_variance=tensors["log_variance"],
            body=tensors["body"],
            target=tensors["target"],
            annotated=tensors["annotated"],
            modality=self.modality,
            kept_places=tuple(places[owners == owner] for owner in np.unique(owners)),
        )


def cache_samples(
    model: Model,
    scans: Sequence[LabelledScan],
    task: LabelTask,
    poses: Sequence[int],
    folder: Path,
    on_example: Callable[[int, int], None] = lambda number, of: None,
) -> list[SampleEntry]:
    """Return the entries of all scans with all augmentations, scan by scan; missing entries are encoded.

    Entries that are damaged, or older than their scan or labels, are encoded again.

    Args:
        task: the classes to learn.
        poses: numbers of the augmentations; 0 means none.
        folder: the cache directory.
        on_example: called before each sample with the number of finished samples and the total.

    Raises:
        InputError: some scans or labels cannot be used (raised with their names after all other scans were
            encoded), or the folder cannot be written.
    """
    make_folder(folder)
    check_writable(folder)
    total = len(scans) * len(poses)
    entries: list[SampleEntry] = []
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
) -> Iterator[SampleEntry]:
    """Yield the entries of one scan; missing entries are encoded.

    Raises:
        UnusableScanError: the scan or its labels cannot be used.
        InputError: an entry cannot be written.
    """
    prepared: tuple[list[PreparedScan], np.ndarray] | None = None
    for done, pose in enumerate(poses):
        on_pose(done)
        path = _path(folder, model, scan, meaning, pose)
        entry = _usable_entry(path, scan, pose)
        if entry is None:
            try:
                prepared = prepared or prepared_scan(model, scan)
            except InputError as error:
                raise UnusableScanError(str(error)) from error
            _write(path, model, scan, prepared, meaning, pose)
            entry = _usable_entry(path, scan, pose)
            assert entry is not None, "it was just written"
        yield entry


def open_samples(
    model: Model, scans: Sequence[LabelledScan], task: LabelTask, poses: Sequence[int], folder: Path
) -> list[SampleEntry]:
    """Return the entries that exist for these scans and augmentations. Nothing is written."""
    kept = [
        _usable_entry(_path(folder, model, scan, task.meaning(scan.names), pose), scan, pose)
        for scan in scans
        for pose in poses
    ]
    return [entry for entry in kept if entry is not None]


def _path(folder: Path, model: Model, scan: LabelledScan, meaning: LabelMap, pose: int) -> Path:
    """Return the path of an entry: a digest for all augmentations of a scan, then one of the augmentation."""
    status = scan.labels_path.stat()
    words = [
        FORMAT,
        model.sha256,
        *(
            scan_words(replace(channel, split="train")) for channel in scan.channels
        ),  # the split does not matter
        f"{scan.labels_path.name} {status.st_size} {status.st_mtime_ns}",
        f"{sorted(meaning.classes.items())} {meaning.annotated} {sorted(meaning.ignored)}",
    ]
    return folder / f"{_digest(' '.join(words))}-{_digest(repr(_pose(pose, scan)))}{SUFFIX}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pose(number: int, scan: LabelledScan) -> SpatialAugmentation:
    """Return the augmentation of this number; 0 means none."""
    return (
        SpatialAugmentation()
        if number == 0
        else SpatialAugmentation.drawn(generator_of(POSE_SEED, number), scan.first.modality)
    )


def prepared_scan(model: Model, scan: LabelledScan) -> tuple[list[PreparedScan], np.ndarray]:
    """Return the scans, prepared for the tokenizer, and their labels.

    Raises:
        InputError: a file cannot be used, the grids differ, or a label has no name.
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
            f"{where}: holds label {', '.join(map(str, unnamed))}, which has no name. Name it, or call it "
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
    """Encode a scan with an augmentation and write its entry, completely or not at all."""
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


def _usable_entry(path: Path, scan: LabelledScan, pose: int) -> SampleEntry | None:
    """Return the existing entry, or None if it is missing, outdated or damaged."""
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
    return SampleEntry(
        path=path,
        key=path.name.removesuffix(SUFFIX),
        scan=path.name.split("-")[0],
        pose=pose,
        domain=scan.first.domain,
        modality=scan.first.modality,
        latent_shape=(channels, x, y, z),
        classes=classes,
    )

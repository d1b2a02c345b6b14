"""Checkpoint files: one safetensors file each, with a SHA-256 of its own content.

A file is written under a temporary name, flushed and renamed, so a killed process leaves no half-written
checkpoint. The newest few are kept, and a run resumes from the newest that is intact. `resume.py` decides
what a checkpoint contains. Nothing is unpickled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from meduet_training.runtime.folders import make_folder
from meduet_training.runtime.messages import print_to_stderr
from meduet_training.runtime.retry import retry_storage
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

FOLDER = "checkpoints"  # in the folder of the run
KEPT = 3
HEADER_BYTES = 2**20  # upper bound for names, shapes and the record
NAME = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A checkpoint after `step` steps.

    Attributes:
        tensors: tensors by name, on the CPU.
        record: everything else, as JSON types.
    """

    path: Path
    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with a prefix, named without it."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }


class CorruptedCheckpoint(InputError):
    """A checkpoint file whose content is damaged."""


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any], keep: int = KEPT
) -> Path:
    """Write a checkpoint into the folder of a run, remove all but the last `keep`, and return its path.

    Args:
        step: number of steps done.

    Raises:
        InputError: the disk is full, or cannot be written. Earlier checkpoints are unchanged.
    """
    checkpoints = folder / FOLDER
    make_folder(checkpoints)
    path = checkpoints / f"step-{step:08d}.safetensors"
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"step": str(step), "record": json.dumps(record, sort_keys=True)}
    metadata["sha256"] = _digest(metadata, held)
    check_space(checkpoints, held)

    def write() -> None:
        with write_atomically(path, overwrite=True) as temporary:
            safetensors.torch.save_file(held, temporary, metadata=metadata)
        _flush_folder(checkpoints)

    try:
        retry_storage(write)
    except (InputError, SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: could not be written ({error.__cause__ or error}); it needs "
            f"{_in_words(needed_bytes(held))} and {_in_words(shutil.disk_usage(checkpoints).free)} are free. "
            "Earlier checkpoints are intact: make room, and the same command goes on from the newest."
        ) from error
    _keep_last(checkpoints, step, keep)
    return path


def newest_checkpoint(folder: Path, log: Callable[[str], None] = print_to_stderr) -> Checkpoint | None:
    """Return the newest intact checkpoint of a run; None if the run has no checkpoint.

    Args:
        log: receives a sentence about each newer checkpoint that is damaged.

    Raises:
        InputError: all checkpoints are damaged.
    """
    damaged = []
    for path in reversed(checkpoint_paths(folder)):
        try:
            checkpoint = load_checkpoint(path)
        except CorruptedCheckpoint as error:
            damaged.append(error)
            continue
        for error in damaged:
            log(f"{error} Using {path.name}, the one before.")
        return checkpoint
    if damaged:
        raise InputError(
            f"{folder / FOLDER}: all {len(damaged)} checkpoints are damaged; give another output folder, or "
            f"delete them to start again. The newest: {damaged[0]}"
        )
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint after checking its content against its SHA-256.

    Raises:
        CorruptedCheckpoint: the file is damaged, or cannot be read.
    """
    try:
        content = retry_storage(
            path.read_bytes
        )  # not mapped into memory, where a failing disk kills the process
        metadata = _metadata(content)
        tensors = safetensors.torch.load(content)
        step, record = int(metadata["step"]), json.loads(metadata["record"])
        is_whole = metadata.pop("sha256") == _digest(metadata, tensors)
    except OSError as error:
        raise CorruptedCheckpoint(f"{path.name}: cannot be read ({error.strerror}).") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptedCheckpoint(f"{path.name}: damaged, or no checkpoint of this version.") from error
    if not is_whole or path.name != f"step-{step:08d}.safetensors":
        raise CorruptedCheckpoint(
            f"{path.name}: damaged, its content has another SHA-256 than when it was written."
        )
    return Checkpoint(path=path, step=step, tensors=tensors, record=record)


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the paths of a run's checkpoints, intact or damaged, the oldest first."""
    found = [path for path in (folder / FOLDER).glob("step-*.safetensors") if NAME.fullmatch(path.name)]
    return sorted(found, key=_step_of)


def remove_leftovers(folder: Path) -> int:
    """Remove temporary files of killed processes, and return their number. The caller holds the run lock."""
    leftovers = [path for path in (folder / FOLDER).glob(".*") if path.is_file()]
    for path in leftovers:
        path.unlink()
    return len(leftovers)


def needed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the size of a checkpoint of these tensors on the disk."""
    return HEADER_BYTES + sum(value.nbytes for value in tensors.values())


def check_space(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse to write a checkpoint that is larger than the free disk space.

    Raises:
        InputError: with the two sizes.
    """
    needed, free = needed_bytes(tensors), shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: the disk is full; a checkpoint needs {_in_words(needed)} and {_in_words(free)} are "
            "free. Earlier checkpoints are intact: make room, and the same command goes on from the newest."
        )


def _keep_last(checkpoints: Path, step: int, keep: int) -> None:
    """Remove all but the last `keep` checkpoints up to this step, and later ones, which are damaged."""
    paths = checkpoint_paths(checkpoints.parent)
    earlier = [path for path in paths if _step_of(path) <= step]
    for path in set(paths) - set(earlier[-keep:]):
        path.unlink(missing_ok=True)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of the metadata and of the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for part in _parts(tensors):
        digest.update(part)
    return digest.hexdigest()


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[Any]:
    for name, value in sorted(tensors.items()):
        yield f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode()
        yield value.reshape(-1).view(torch.uint8).numpy()


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file. The file begins with the length of its header."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length])["__metadata__"])


def _flush_folder(folder: Path) -> None:
    """Wait until the new file name is on the disk. Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _in_words(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"

"""Checkpoints on disk: each is one safetensors file that is whole, or is known not to be.

A file carries the SHA-256 of all that it holds, so that no kill can part the two. It is written beside its
name, flushed and renamed; the last few are kept, and the newest that is whole is the one that counts. What is
in a checkpoint is its caller's business (`resume.py`). Nothing is unpickled.
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

FOLDER = "checkpoints"  # in that of the run
KEPT = 3
HEADER_BYTES = 2**20  # more than names, shapes and the record take
NAME = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What was saved after `step` steps.

    Attributes:
        tensors: on the CPU, under the names they were given.
        record: all that is no tensor, as JSON types.
    """

    path: Path
    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without it."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }


class CorruptedCheckpoint(InputError):
    """A checkpoint that is not what was written."""


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any], keep: int = KEPT
) -> Path:
    """Write one checkpoint into a run's folder, whole or not at all, then remove all but the last `keep`.

    Args:
        step: so many steps were taken.

    Raises:
        InputError: the disk is full, or cannot be written; the earlier checkpoints are as they were.
    """
    checkpoints = folder / FOLDER
    make_folder(checkpoints)
    path = checkpoints / f"step-{step:08d}.safetensors"
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    words = {"step": str(step), "record": json.dumps(record, sort_keys=True)}
    words["sha256"] = _digest(words, held)
    check_space(checkpoints, held)

    def write() -> None:
        with write_atomically(path, overwrite=True) as temporary:
            safetensors.torch.save_file(held, temporary, metadata=words)
        _flush_folder(checkpoints)

    try:
        retry_storage(write)
    except (InputError, SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: could not be written ({error.__cause__ or error}); it needs "
            f"{_in_words(needed_bytes(held))} and {_in_words(shutil.disk_usage(checkpoints).free)} are free. "
            "Earlier checkpoints are whole: make room, and the same command goes on from the newest."
        ) from error
    _keep_last(checkpoints, step, keep)
    return path


def newest_checkpoint(folder: Path, say: Callable[[str], None] = print_to_stderr) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole; None where none was ever written.

    Args:
        say: hears a sentence about each newer one that is damaged and was passed over.

    Raises:
        InputError: there are checkpoints, but all are damaged.
    """
    damaged = []
    for path in reversed(checkpoint_paths(folder)):
        try:
            checkpoint = load_checkpoint(path)
        except CorruptedCheckpoint as error:
            damaged.append(error)
            continue
        for error in damaged:
            say(f"{error} Using {path.name}, the one before.")
        return checkpoint
    if damaged:
        raise InputError(
            f"{folder / FOLDER}: all {len(damaged)} checkpoints are damaged; give another output folder, or "
            f"delete them to start again. The newest: {damaged[0]}"
        )
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint, every byte of it checked against its SHA-256.

    Raises:
        DamagedCheckpoint: it is not what was written, or cannot be read.
    """
    try:
        content = retry_storage(
            path.read_bytes
        )  # not mapped into memory, where a failing disk kills the process
        words = _words(content)
        tensors = safetensors.torch.load(content)
        step, record = int(words["step"]), json.loads(words["record"])
        is_whole = words.pop("sha256") == _digest(words, tensors)
    except OSError as error:
        raise CorruptedCheckpoint(f"{path.name}: cannot be read ({error.strerror}).") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptedCheckpoint(f"{path.name}: damaged, or no checkpoint of this version.") from error
    if not is_whole or path.name != f"step-{step:08d}.safetensors":
        raise CorruptedCheckpoint(f"{path.name}: damaged, its content has another SHA-256 than was written.")
    return Checkpoint(path=path, step=step, tensors=tensors, record=record)


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints of a run, whole or not, the oldest first."""
    found = [path for path in (folder / FOLDER).glob("step-*.safetensors") if NAME.fullmatch(path.name)]
    return sorted(found, key=_step_of)


def remove_leftovers(folder: Path) -> int:
    """Remove what killed saves left in a run's folder; how many files. Only for who holds the run's lock."""
    leftovers = [path for path in (folder / FOLDER).glob(".*") if path.is_file()]
    for path in leftovers:
        path.unlink()
    return len(leftovers)


def needed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Room on the disk for a checkpoint of these tensors."""
    return HEADER_BYTES + sum(value.nbytes for value in tensors.values())


def check_space(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        InputError: there is less room than a checkpoint of these tensors needs.
    """
    needed, free = needed_bytes(tensors), shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: the disk is full; a checkpoint needs {_in_words(needed)} and {_in_words(free)} are "
            "free. Earlier checkpoints are whole: make room, and the same command goes on from the newest."
        )


def _keep_last(checkpoints: Path, step: int, keep: int) -> None:
    """Remove all but the last `keep` up to this step; later ones were passed over as damaged."""
    paths = checkpoint_paths(checkpoints.parent)
    earlier = [path for path in paths if _step_of(path) <= step]
    for path in set(paths) - set(earlier[-keep:]):
        path.unlink(missing_ok=True)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _digest(words: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the words and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(dict(words), sort_keys=True).encode())
    for part in _parts(tensors):
        digest.update(part)
    return digest.hexdigest()


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[Any]:
    for name, value in sorted(tensors.items()):
        yield f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode()
        yield value.reshape(-1).view(torch.uint8).numpy()


def _words(content: bytes) -> dict[str, str]:
    """What a safetensors file says beside its tensors: the header's length, then the header."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length])["__metadata__"])


def _flush_folder(folder: Path) -> None:
    """Wait until the new name is on the disk, not only the bytes (Windows has no such call)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _in_words(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"

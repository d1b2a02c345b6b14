"""What is written beside a result, and what is checked before minutes are spent on one."""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import sidecar_path, write_atomically
from napari_meduet.volumes.safe_open import reason, shown_name


def check_output(
    path: Path,
    *suffixes: str,
    overwrite: bool,
    inputs: Iterable[Path] = (),
    option: str = "--output",
    beside: Path | None = None,
) -> None:
    """Refuse an output that could not be written, or that would replace what must not be lost.

    Args:
        option: how the command line calls it.
        beside: the output that this file is written with; it has no sidecar of its own.

    Raises:
        InputError: the suffix is another, the folder is missing or read-only, the file or its sidecar exists,
            or it is one of the inputs.
    """
    name = shown_name(path)
    if not any(path.name.endswith(suffix) and path.name != suffix for suffix in suffixes):
        raise InputError(f"{name}: {option} must end in {' or '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise InputError(f"{name}: {option}: its folder does not exist; create it first.")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise InputError(f"{name}: {option} is one of the inputs, which are never replaced.")
    if beside is not None and path.absolute() in (beside.absolute(), sidecar_path(beside).absolute()):
        raise InputError(
            f"{name}: {option}: this name is taken by --output or its sidecar; choose another one."
        )
    for target in (path, sidecar_path(path)) if beside is None else (path,):
        if target.is_dir():
            raise InputError(f"{shown_name(target)}: {option} is a folder; name a file.")
        if target.exists() and not overwrite:
            raise InputError(
                f"{shown_name(target)}: exists already; choose another {option}, or allow --overwrite."
            )
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(f"{name}: {option}: its folder cannot be written to ({reason(error)}).") from error


def write_result(path: Path, content: bytes, provenance: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write a result that is no volume, and its sidecar."""
    with (
        write_atomically(sidecar_path(path), overwrite) as sidecar,
        write_atomically(path, overwrite) as temporary,
    ):
        temporary.write_bytes(content)
        sidecar.write_text(json.dumps(dict(provenance), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

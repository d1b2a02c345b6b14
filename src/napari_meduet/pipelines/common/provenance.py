"""Where a result comes from, as plain data for its sidecar and its header (docs/reliability.md, section 6).

Inputs are named by digest and role, never by file or patient. With this record and the same inputs a person
can repeat the computation; without it nobody can mistake the result for an acquired scan.
"""

import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_meduet import __version__
from napari_meduet.pipelines.common.outputs import plain

if TYPE_CHECKING:
    from napari_meduet.models.model import Model

VERSIONS_OF = ("torch", "numpy", "nibabel", "safetensors")


def provenance(
    *,
    kind: str,
    modality: str,
    is_synthetic: bool,
    sources: Iterable[tuple[str, str]],
    model: "Model",
    parameters: Mapping[str, Any],
    warnings: Iterable[str] = (),
    seed: int | None = None,
    safety: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of one result.

    Args:
        kind: what the result is: generated, translated, roundtrip, factors or prototype.
        is_synthetic: a model made the voxels.
        sources: role and sha256 of every input.
        parameters: all that the request decided beyond inputs, model and device.
        warnings: sentences given when the inputs were read and while computing.
        seed: None where nothing is drawn.
        safety: the safety report of a swap.
    """
    record: dict[str, Any] = {
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "napari-meduet", "Version": __version__, "Commit": commit()}],
        "synthetic": is_synthetic,
        "kind": kind,
        "modality": modality,
        "Sources": [{"role": role, "sha256": sha256} for role, sha256 in sources],
        "model": {
            "name": model.card.name,
            "sha256": model.sha256,
            "files": {name: file.sha256 for name, file in model.card.files.items()},
            "commit": model.card.commit,
        },
        "parameters": dict(parameters),
        "seed": seed,
        "device": str(model.device),
        "dtype": "float32",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS_OF},
        "warnings": list(warnings),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if safety is not None:
        record["safety"] = safety
    return plain(record)


@cache
def commit() -> str | None:
    """The commit of the checkout this code runs from; None where it was installed without one."""
    folder = Path(__file__).resolve().parent
    try:
        found = subprocess.run(  # noqa: S603 - no word of it comes from outside
            ["git", "-C", str(folder), "log", "-1", "--format=%H", "--", str(folder.parent)],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None

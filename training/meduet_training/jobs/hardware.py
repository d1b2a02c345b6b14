"""Hardware and software of this machine that matter for a training.

`jobs machine` and `launch check` print it before a job is submitted; executors.py chooses free GPUs from it.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

GIB = 2**30
COMMAND_TIMEOUT_S = 30


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, and its free and total memory in GiB."""

    index: int
    name: str
    free_gib: float
    total_gib: float


def find_gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs of this machine, listed by nvidia-smi, because importing torch takes seconds."""
    query = ["nvidia-smi", "--query-gpu=index,name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    rows = [line.split(", ") for line in _output(query).splitlines()]
    return [
        Gpu(int(index), name, round(float(free) / 1024, 1), round(float(total) / 1024, 1))
        for index, name, free, total in rows
    ]


def describe_machine(jobs: Path) -> dict[str, Any]:
    """Return GPUs, memory, disk, versions and SLURM partitions, as JSON types.

    Args:
        jobs: folder of all jobs, whose disk is measured. It need not exist yet.
    """
    return {
        "meduet": _version("napari-meduet"),
        "torch": _version("torch"),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_free_gib": round(psutil.virtual_memory().available / GIB, 1),
        "disk_free_gib": round(shutil.disk_usage(_nearest_existing(jobs)).free / GIB, 1),
        "gpus": [asdict(gpu) for gpu in find_gpus()],
        "sbatch": shutil.which("sbatch") is not None,
        "partitions": _partitions(),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _nearest_existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _partitions() -> list[str]:
    names = _output(["sinfo", "--noheader", "--format=%P"]).split()
    return sorted({name.rstrip("*") for name in names})  # sinfo marks the default partition with *


def _output(command: Sequence[str]) -> str:
    """Return what a command prints, or an empty text if it is missing or fails."""
    try:
        return subprocess.run(  # noqa: S603 a fixed command
            command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""

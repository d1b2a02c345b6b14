"""What this machine has to train with: what one wants to know before anything is submitted."""

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    index: int
    name: str
    free_gib: float
    total_gib: float


def find_gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine, as its driver lists them; torch is not asked, which takes seconds."""
    query = ["nvidia-smi", "--query-gpu=index,name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in listing.splitlines()]
    return [
        Gpu(int(index), name, round(float(free) / 1024, 1), round(float(total) / 1024, 1))
        for index, name, free, total in rows
    ]


def describe_machine(jobs: Path) -> dict[str, Any]:
    """GPUs, memory, disk, versions, and whether SLURM is here, as JSON types."""
    return {
        "meduet": _version("napari-meduet"),
        "torch": _version("torch"),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_free_gib": round(psutil.virtual_memory().available / GIB, 1),
        "disk_free_gib": round(shutil.disk_usage(_existing(jobs)).free / GIB, 1),
        "gpus": [asdict(gpu) for gpu in find_gpus()],
        "sbatch": shutil.which("sbatch") is not None,
        "partitions": _partitions(),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _partitions() -> list[str]:
    try:
        listing = subprocess.run(
            ["sinfo", "--noheader", "--format=%P"],  # noqa: S607 as the user's PATH finds it
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted({name.rstrip("*") for name in listing.split()})

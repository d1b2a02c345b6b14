"""A small cohort, a small tokenizer, and the latent cache that they make."""

import hashlib
import json
from pathlib import Path

import torch
from tiny import save_phantom, save_tiny_model

from meduet_training.data.caches.latent_encoding import (
    CacheOptions,
    CacheReport,
    EncodingTask,
    encoding_tasks,
    fill_cache,
)
from meduet_training.data.caches.latents import ENTRIES, entry_path
from meduet_training.data.cohort.scan import Scan

# (name, domain, modality, split): the second site has one scan, the third is held out
COHORT = [
    ("smith_john_1", "site a", "CT", "train"),
    ("smith_john_2", "site a", "CT", "train"),
    ("smith_john_3", "site a", "CT", "train"),
    ("doe_jane", "site b", "MR", "train"),
    ("roe_richard", "site a", "CT", "test"),
]


def save_cohort(folder: Path, count: int = len(COHORT)) -> list[Scan]:
    """Phantoms, each with other noise; the first alone is larger than a window."""
    folder.mkdir(parents=True, exist_ok=True)
    scans = []
    for seed, (name, domain, modality, split) in enumerate(COHORT[:count]):
        path = save_phantom(
            folder / f"{name}.nii.gz", modality, seed, shape=(130, 126, 64) if seed == 0 else (44, 40, 26)
        )
        scans.append(
            Scan(
                path=path,
                domain=domain,
                patient=hashlib.sha256(name.encode()).hexdigest()[:12],
                modality=modality,
                split=split,
                licence="CC0",
                may_train=True,
            )
        )
    return scans


def save_index(scans: list[Scan]) -> Path:
    """The folder of the scans, with the `index.json` that meduet-cache reads."""
    folder = scans[0].path.parent
    records = [
        {
            "path": scan.path.name, "domain": scan.domain, "patient_group": scan.patient,
            "modality": scan.modality, "sequence": None, "split": scan.split, "licence": "CC0",
            "licence_grade": "A",
        }
        for scan in scans
    ]  # fmt: skip
    (folder / "index.json").write_text(json.dumps(records))
    return folder


def tokenizer_folder(folder: Path, seed: int = 0) -> Path:
    """A model of random weights, whose tokenizer writes the latents."""
    return save_tiny_model(folder, seed)


def fill(
    folder: Path, tokenizer: Path, scans: list[Scan], **options
) -> tuple[list[EncodingTask], CacheReport]:
    """The tasks of a cohort, done by this process."""
    tasks = encoding_tasks(scans)
    return tasks, fill_cache(CacheOptions(folder=folder, tokenizer=tokenizer, device="cpu", **options), tasks)


def entries(folder: Path) -> dict[str, bytes]:
    """Everything that lies where entries are, by name."""
    return {path.name: path.read_bytes() for path in sorted((folder / ENTRIES).iterdir())}


def rewrite(folder: Path, key: str, change) -> None:
    """Change an entry's bytes in place."""
    path = entry_path(folder, key)
    path.write_bytes(change(bytearray(path.read_bytes())))


def flipped(place: int):
    """A function that flips one bit of a byte; places count from the end if they are negative."""

    def change(content: bytearray) -> bytearray:
        content[place] ^= 0x10
        return content

    return change


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

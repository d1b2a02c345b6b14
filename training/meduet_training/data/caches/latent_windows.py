"""Latent windows: crops of prepared scans, encoded once in several appearances.

A window is a crop of 24 latent voxels along each axis at a random place, with a random rotation, scaling and
mirroring. Each window is encoded as it was scanned, through simulated scanners, and in every registered
sequence of the same session, so the correct result of a style swap is known. Mean and log-variance are
stored, and training draws a new latent at each step (specification, C-32). `windows.py` makes the windows of
a cohort once; `sources/windows.py` draws batches from them.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import reduce
from jaxtyping import Float, Int
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.nn import functional as F

from meduet_training.data.augmentation.intensity import to_units
from meduet_training.data.augmentation.scanners import (
    CT_SCANNERS,
    MR_SCANNERS,
    Scanner,
    random_scanner,
    see_through,
)
from meduet_training.data.augmentation.spatial import cut, place
from meduet_training.data.caches.latent_entry import WINDOW
from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.caches.prepared import WorkingScan
from napari_meduet.errors import InputError
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.intensity import CT_FULL, IntensityProfile

TOKEN = 4  # latent voxels along each axis of a token (M-02)
RANDOM_SCANNERS = 3  # random scanners of each scan, beside the listed ones
REGISTERED_WEIGHT = 8  # registered scans are rare and most useful: they give this many times more anatomies
APPEARANCES = 100  # appearance = scan * APPEARANCES + scanner, so a scan has at most this many scanners
SAMPLED = 8  # the digest of windows takes every 8th latent voxel along each axis


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentWindows:
    """All windows of a cohort.

    Attributes:
        mean, log_variance: (N, C, 24, 24, 24), float16.
        coverage: fraction of body in each token.
        anatomy: number of the anatomy. Windows with the same number show the same anatomy on the same grid.
        appearance: number of scan and scanner (`scan`, `scanner`).
        domain: index into `domains`; -1 for a random scanner, which belongs to no domain.
        domains: names of the domains, those of the simulated scanners included.
        tokenizer_sha256: digest of the tokenizer that encoded the windows (`latent_spec.py`).
        ct_profile: the intensity profile of the CT windows.
    """

    mean: Float[Tensor, "N C X Y Z"]
    log_variance: Float[Tensor, "N C X Y Z"]
    coverage: Float[Tensor, "N L"]
    anatomy: Int[Tensor, " N"]
    appearance: Int[Tensor, " N"]
    domain: Int[Tensor, " N"]
    domains: tuple[str, ...]
    tokenizer_sha256: str
    ct_profile: IntensityProfile = CT_FULL

    @property
    def scan(self) -> Int[Tensor, " N"]:
        """Number of the scan that each window was cut from."""
        return self.appearance // APPEARANCES

    @property
    def scanner(self) -> Int[Tensor, " N"]:
        """Number of the simulated scanner of each window; 0 means as it was scanned."""
        return self.appearance % APPEARANCES

    @property
    def sha256(self) -> str:
        """Digest of labels, shapes and a sample of the latents. It identifies a set of windows."""
        sample = self.mean[:, :, ::SAMPLED, ::SAMPLED, ::SAMPLED]
        parts = (sample, self.coverage, self.anatomy, self.appearance, self.domain)
        digest = hashlib.sha256(f"{self.tokenizer_sha256} {self.domains} {tuple(self.mean.shape)}".encode())
        for part in parts:
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def statistics(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Return mean and standard deviation of each latent channel over the body."""
        inside = self.coverage > 0.5
        size = round(inside.shape[1] ** (1 / 3))
        mask = inside.view(-1, 1, size, size, size).float()
        mask = F.interpolate(mask, size=self.mean.shape[2:], mode="nearest") > 0
        values = [self.mean[:, channel][mask[:, 0]].float() for channel in range(self.mean.shape[1])]
        return torch.stack([v.mean() for v in values]), torch.stack([v.std() for v in values])


def save_windows(windows: LatentWindows, path: Path) -> None:
    """Write the windows to a file, completely or not at all."""
    tensors = {name: value for name, value in vars(windows).items() if isinstance(value, Tensor)}
    metadata = {
        "domains": json.dumps(windows.domains),
        "tokenizer_sha256": windows.tokenizer_sha256,
        "ct_profile": json.dumps([windows.ct_profile.name, windows.ct_profile.knots]),
    }
    with write_atomically(path, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_windows(path: Path) -> LatentWindows:
    """Return the windows in a file.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path.name}: there is no such file of latent windows.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        name, knots = json.loads(metadata["ct_profile"])
        return LatentWindows(
            **load_file(path),
            domains=tuple(json.loads(metadata["domains"])),
            tokenizer_sha256=metadata["tokenizer_sha256"],
            ct_profile=IntensityProfile(name, tuple((value, unit) for value, unit in knots)),
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: no latent windows, damaged, or written by another version; make them again."
        ) from error


@torch.inference_mode()
def make_windows(
    scans: list[WorkingScan],
    tokenizer: Tokenizer,
    *,
    groups: int,
    seed: int,
    device: torch.device,
    ct_profile: IntensityProfile = CT_FULL,
) -> LatentWindows:
    """Cut windows from prepared scans, encode them, and return them.

    Args:
        scans: on the working grid. Scans with the same `aligned` are registered.
        tokenizer: on `device`.
        groups: anatomies for each scan, or 8 times as many for each set of registered scans.
        seed: seed of places, scanners and noise.
        ct_profile: the intensity profile for CT.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device).manual_seed(seed)
    sets: dict[str, list[int]] = {}
    for number, scan in enumerate(scans):
        sets.setdefault(scan.aligned, []).append(number)
    domains = sorted({scan.domain for scan in scans})
    domains += [f"simulated-CT-{k}" for k in range(len(CT_SCANNERS))]
    domains += [f"simulated-MR-{k}" for k in range(len(MR_SCANNERS))]
    scanners = [_scanners(scan.modality, generator) for scan in scans]

    rows: dict[str, list[Tensor]] = {"mean": [], "log_variance": [], "coverage": []}
    labels: dict[str, list[int]] = {"anatomy": [], "appearance": [], "domain": []}
    window_x, window_y, window_z = (WINDOW * stride for stride in tokenizer.stride)  # voxels
    token_x, token_y, token_z = (TOKEN * stride for stride in tokenizer.stride)
    sides = (window_x, window_y, window_z)
    rounds = {True: groups * REGISTERED_WEIGHT, False: groups}
    work = [(members, number) for members in sets.values() for number in range(rounds[len(members) > 1])]
    for anatomy, (members, number) in enumerate(track(work, description="Encoding windows")):
        placement = place(torch.from_numpy(scans[members[0]].body), generator, sides)
        for member in members:
            scan = scans[member]
            values = cut(torch.from_numpy(scan.values).float(), placement, "border", sides).to(device)
            body = cut(torch.from_numpy(scan.body).float(), placement, "zeros", sides)
            coverage = reduce(body, "(x p) (y q) (z r) -> (x y z)", "mean", p=token_x, q=token_y, r=token_z)
            for choice in _choices(scan.modality, number, few=len(members) > 1):
                seen = values[None]
                if choice > 0:
                    seen = see_through(seen, [scanners[member][choice]], scan.modality, noise)
                mean, log_variance = tokenizer.encode(to_units(seen, scan.modality, ct_profile)[None])
                rows["mean"].append(mean[0].half().cpu())
                rows["log_variance"].append(log_variance[0].half().cpu())
                rows["coverage"].append(coverage)
                labels["anatomy"].append(anatomy)
                labels["appearance"].append(member * APPEARANCES + choice)
                labels["domain"].append(_domain(scan, choice, domains))
    return LatentWindows(
        **{name: torch.stack(tensors) for name, tensors in rows.items()},
        **{name: torch.tensor(numbers) for name, numbers in labels.items()},
        domains=tuple(domains),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        ct_profile=ct_profile,
    )


def _listed(modality: str) -> tuple[Scanner, ...]:
    return CT_SCANNERS if modality == "CT" else MR_SCANNERS


def _scanners(modality: str, generator: Generator) -> list[Scanner]:
    """Return the scanners of one scan: none, the listed scanners, and a few random ones."""
    own = [random_scanner(modality, generator) for _ in range(RANDOM_SCANNERS)]
    return [Scanner(), *_listed(modality), *own]


def _choices(modality: str, number: int, *, few: bool) -> Iterator[int]:
    """Return which scanners of a scan are used for its anatomy of this number.

    These are no scanner, one or two listed scanners in turn, and one random scanner.
    """
    listed = len(_listed(modality))
    yield 0
    yield 1 + number % listed
    if not few:
        yield 1 + (number + 2) % listed
        yield 1 + listed + number % RANDOM_SCANNERS


def _domain(scan: WorkingScan, choice: int, domains: list[str]) -> int:
    if choice == 0:
        return domains.index(scan.domain)
    if choice <= len(_listed(scan.modality)):
        return domains.index(f"simulated-{scan.modality}-{choice - 1}")
    return -1

"""Latent windows in groups: one anatomy each, in the several appearances that are known of it.

A group is a cube of 96 voxels, placed, turned and stretched at random, and seen as it was scanned, through
simulated scanners, and in every registered sequence of the same session. Each appearance is encoded once;
mean and log-variance are kept, so that the training draws a fresh latent each time (C-32).
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

from meduet_training.data.augmentation.spatial import cut, place
from meduet_training.data.caches.prepared import WorkingScan
from meduet_training.data.augmentation.scanners import CT_SCANNERS, MR_SCANNERS, Scanner, random_scanner, see_through
from meduet_training.data.augmentation.intensity import to_units
from meduet_training.data.tokenizer_files import tokenizer_sha256
from napari_meduet.errors import InputError
from napari_meduet.tokenizers.wavelet import WaveletTokenizer
from napari_meduet.volumes.files import write_atomically

TOKEN = 16  # voxels
RANDOM_SCANNERS = 3  # of each scan, beside the listed ones
REGISTERED_WEIGHT = 8  # registered sets are rare and teach the most: so many times the anatomies of others
APPEARANCES = 100  # room for the scanners of a scan: appearance = scan * APPEARANCES + scanner
SAMPLED = 8  # every so many latent voxels are enough to tell windows from others


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentWindows:
    """All windows of a cohort.

    Attributes:
        mean, log_variance: (N, C, 24, 24, 24), float16.
        coverage: share of body in each token.
        anatomy: windows with one number show one anatomy on one grid.
        appearance: windows with one number are of one scan through one scanner; see `scan` and `scanner`.
        domain: index into `domains`; -1 for a scanner drawn at random, which is nobody's.
        tokenizer_sha256: of the tokenizer that wrote them (`tokenizer_files.py`).
    """

    mean: Float[Tensor, "N C X Y Z"]
    log_variance: Float[Tensor, "N C X Y Z"]
    coverage: Float[Tensor, "N L"]
    anatomy: Int[Tensor, " N"]
    appearance: Int[Tensor, " N"]
    domain: Int[Tensor, " N"]
    domains: tuple[str, ...]
    tokenizer_sha256: str

    @property
    def scan(self) -> Int[Tensor, " N"]:
        """Which scan each window was cut from."""
        return self.appearance // APPEARANCES

    @property
    def scanner(self) -> Int[Tensor, " N"]:
        """Through which scanner it was seen; 0: as it was scanned."""
        return self.appearance % APPEARANCES

    @property
    def sha256(self) -> str:
        """Tells one set of windows from another: a digest of labels, shapes and a sample of the latents."""
        sample = self.mean[:, :, ::SAMPLED, ::SAMPLED, ::SAMPLED]
        parts = (sample, self.coverage, self.anatomy, self.appearance, self.domain)
        digest = hashlib.sha256(f"{self.tokenizer_sha256} {self.domains} {tuple(self.mean.shape)}".encode())
        for part in parts:
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def statistics(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Mean and standard deviation of each latent channel over the body."""
        inside = self.coverage > 0.5
        size = round(inside.shape[1] ** (1 / 3))
        mask = inside.view(-1, 1, size, size, size).float()
        mask = F.interpolate(mask, size=self.mean.shape[2:], mode="nearest") > 0
        values = [self.mean[:, channel][mask[:, 0]].float() for channel in range(self.mean.shape[1])]
        return torch.stack([v.mean() for v in values]), torch.stack([v.std() for v in values])


def save_windows(windows: LatentWindows, path: Path) -> None:
    """Write the windows, whole or not at all."""
    tensors = {name: value for name, value in vars(windows).items() if isinstance(value, Tensor)}
    words = {"domains": json.dumps(windows.domains), "tokenizer_sha256": windows.tokenizer_sha256}
    with write_atomically(path, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata=words)


def load_windows(path: Path) -> LatentWindows:
    """Read windows back.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path.name}: there is no such file of latent windows.")
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata()
        domains, tokenizer = tuple(json.loads(words["domains"])), words["tokenizer_sha256"]
        return LatentWindows(**load_file(path), domains=domains, tokenizer_sha256=tokenizer)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: no latent windows, damaged, or written by another version; make them again."
        ) from error


@torch.inference_mode()
def make_windows(
    scans: list[WorkingScan], tokenizer: WaveletTokenizer, *, groups: int, seed: int, device: torch.device
) -> LatentWindows:
    """Encode `groups` anatomies of each set of registered scans in all their appearances."""
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
    turns = {True: groups * REGISTERED_WEIGHT, False: groups}
    work = [(members, turn) for members in sets.values() for turn in range(turns[len(members) > 1])]
    for anatomy, (members, turn) in enumerate(track(work, description="Encoding windows")):
        placement = place(torch.from_numpy(scans[members[0]].body), generator)
        for member in members:
            scan = scans[member]
            values = cut(torch.from_numpy(scan.values).float(), placement, "border").to(device)
            body = cut(torch.from_numpy(scan.body).float(), placement, "zeros")
            coverage = reduce(body, "(x p) (y q) (z r) -> (x y z)", "mean", p=TOKEN, q=TOKEN, r=TOKEN)
            for choice in _choices(scan.modality, turn, few=len(members) > 1):
                seen = values[None]
                if choice > 0:
                    seen = see_through(seen, [scanners[member][choice]], scan.modality, noise)
                mean, log_variance = tokenizer.encode(to_units(seen, scan.modality)[None])
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
    )


def _listed(modality: str) -> tuple[Scanner, ...]:
    return CT_SCANNERS if modality == "CT" else MR_SCANNERS


def _scanners(modality: str, generator: Generator) -> list[Scanner]:
    """A scan's scanners: none, the listed ones, a few of its own."""
    own = [random_scanner(modality, generator) for _ in range(RANDOM_SCANNERS)]
    return [Scanner(), *_listed(modality), *own]


def _choices(modality: str, turn: int, *, few: bool) -> Iterator[int]:
    """Which of a scan's scanners see this anatomy: none, one or two listed ones in turn, one of its own."""
    listed = len(_listed(modality))
    yield 0
    yield 1 + turn % listed
    if not few:
        yield 1 + (turn + 2) % listed
        yield 1 + listed + turn % RANDOM_SCANNERS


def _domain(scan: WorkingScan, choice: int, domains: list[str]) -> int:
    if choice == 0:
        return domains.index(scan.domain)
    if choice <= len(_listed(scan.modality)):
        return domains.index(f"simulated-{scan.modality}-{choice - 1}")
    return -1

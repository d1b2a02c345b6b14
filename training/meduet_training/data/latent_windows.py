"""Latent windows in groups: one anatomy each, in the several appearances that are known of it.

A group is a cube of 96 voxels, placed, turned and stretched at random, and seen as it was scanned, through
simulated scanners, and in every registered sequence of the same session. Each appearance is encoded once;
mean and log-variance are kept, so that the training draws a fresh latent each time (C-32).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import reduce
from jaxtyping import Float, Int
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.nn import functional as F

from meduet_training.data.prepared import PreparedScan
from meduet_training.data.scanners import CT_SCANNERS, MR_SCANNERS, Scanner, random_scanner, see_through
from meduet_training.tokenizer_training import to_units
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import write_atomically

SIDE = 96  # voxels, M-02
TOKEN = 16  # voxels
BODY_SHARE = 0.15  # of a window at least, where the scan allows it
ATTEMPTS = 10
ROTATION = math.radians(12.0)
STRETCH = (0.85, 1.15)
JITTER = 10.0  # voxels by which a scan smaller than a window is moved
RANDOM_SCANNERS = 3  # of each scan, beside the listed ones


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentWindows:
    """All windows of a cohort.

    Attributes:
        mean, log_variance: (N, C, 24, 24, 24), float16.
        coverage: share of body in each token.
        anatomy: windows with one number show one anatomy on one grid.
        appearance: windows with one number are of one scan through one scanner.
        domain: index into `domains`; -1 for a scanner drawn at random, which is nobody's.
    """

    mean: Float[Tensor, "N C X Y Z"]
    log_variance: Float[Tensor, "N C X Y Z"]
    coverage: Float[Tensor, "N L"]
    anatomy: Int[Tensor, " N"]
    appearance: Int[Tensor, " N"]
    domain: Int[Tensor, " N"]
    domains: tuple[str, ...]

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
    with write_atomically(path, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata={"domains": "\n".join(windows.domains)})


def load_windows(path: Path) -> LatentWindows:
    """Read windows back."""
    with safe_open(path, framework="pt") as file:
        domains = tuple(file.metadata()["domains"].split("\n"))
    return LatentWindows(**load_file(path), domains=domains)


@torch.inference_mode()
def make_windows(
    scans: list[PreparedScan], tokenizer: Tokenizer, *, groups: int, seed: int, device: torch.device
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
    work = [(members, turn) for members in sets.values() for turn in range(groups * _weight(members))]
    for anatomy, (members, turn) in enumerate(track(work, description="Encoding windows")):
        placed = _placement(scans[members[0]], generator)
        for member in members:
            scan = scans[member]
            values = _cut(torch.from_numpy(scan.values).float(), placed, "border").to(device)
            body = _cut(torch.from_numpy(scan.body).float(), placed, "zeros")
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
                labels["appearance"].append(member * 100 + choice)
                labels["domain"].append(_domain(scan, choice, domains))
    return LatentWindows(
        **{name: torch.stack(tensors) for name, tensors in rows.items()},
        **{name: torch.tensor(numbers) for name, numbers in labels.items()},
        domains=tuple(domains),
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


def _weight(members: list[int]) -> int:
    """Registered sets are rare and teach the most: they give more anatomies."""
    return 8 if len(members) > 1 else 1


def _domain(scan: PreparedScan, choice: int, domains: list[str]) -> int:
    if choice == 0:
        return domains.index(scan.domain)
    if choice <= len(_listed(scan.modality)):
        return domains.index(f"simulated-{scan.modality}-{choice - 1}")
    return -1


def _placement(scan: PreparedScan, generator: Generator) -> tuple[Tensor, Tensor]:
    """Centre (3,) in voxels and matrix (3, 3) from a window's voxels to the scan's."""

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    angles = [between(-ROTATION, ROTATION) for _ in range(3)]
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (k for k in range(3) if k != axis)
        turn = torch.eye(3)
        turn[one, one] = turn[other, other] = math.cos(angle)
        turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    matrix = matrix * between(*STRETCH)
    if between(0.0, 1.0) < 0.5:
        matrix = torch.eye(3)  # half of the windows are as sharp as the scan
    if between(0.0, 1.0) < 0.5:
        matrix[:, 0] *= -1  # left and right exchanged
    shape = torch.tensor(scan.values.shape, dtype=torch.float32)
    body = torch.from_numpy(scan.body)
    centre = (shape - 1) / 2
    for _ in range(ATTEMPTS):
        room = (shape - SIDE).clamp(min=0.0) / 2 + torch.where(shape < SIDE, JITTER, 0.0)
        centre = (shape - 1) / 2 + torch.tensor([between(-1.0, 1.0) for _ in range(3)]) * room
        centre = centre.round() + 0.5  # an even window without a turn falls on voxels
        low = (centre - SIDE / 2).clamp(min=0).long().tolist()
        high = (centre + SIDE / 2).clamp(min=1).long().tolist()
        if body[low[0] : high[0], low[1] : high[1], low[2] : high[2]].float().mean() >= BODY_SHARE:
            break
    return centre, matrix


def _cut(volume: Float[Tensor, "X Y Z"], placed: tuple[Tensor, Tensor], outside: str) -> Tensor:
    """The window (96, 96, 96) that a placement cuts from a volume, trilinear."""
    centre, matrix = placed
    steps = torch.arange(SIDE) - (SIDE - 1) / 2
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)  # (96, 96, 96, 3)
    places = grid @ matrix.T + centre
    places = 2.0 * places / (torch.tensor(volume.shape) - 1).clamp(min=1) - 1.0
    sampled = F.grid_sample(
        volume[None, None], places.flip(-1)[None], padding_mode=outside, align_corners=True
    )
    return sampled[0, 0]

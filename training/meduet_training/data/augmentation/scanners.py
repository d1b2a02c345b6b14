"""Simulated scanners: one anatomy seen with another kernel, noise, gain or contrast.

With one patient for most sites nobody can tell a scanner from the person in it. A simulated scanner changes
what a scanner changes and leaves the anatomy alone, so the truth about content and style is known: for the
training (aligned pairs, docs/departures.md) and for the probes (`evaluation/probes.py`). Volumes come in
batches on one device, each with a scanner of its own; CT in HU, MR in profile units.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

KERNEL_REACH = 4  # voxels: a Gaussian of 1.6 voxels, the widest drawn, has lost 98 % of its weight there


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """One way to see an anatomy. Numbers say what differs from the scan as it is.

    `contrast` turns around soft tissue for CT (40 HU, as a change of tube voltage or contrast agent does) and
    is an exponent (gamma) on the units of MR. `inverted` reverses the MR tone curve inside the body.
    """

    blur: float = 0.0  # standard deviation of the kernel, voxels; below 0 sharpens by as much
    noise: float = 0.0  # standard deviation of the added noise: HU for CT, profile units for MR
    noise_grain: float = 0.0  # voxels of blur on the noise: 0 is white
    contrast: float = 1.0
    offset: float = 0.0  # HU, inside the body
    inverted: float = 0.0  # 0 to 1: how far the tone curve is turned round


# The scanners that are domains of their own in the training: strong enough to be told apart by eye.
CT_SCANNERS = (
    Scanner(blur=0.9, noise=3.0, noise_grain=1.0),
    Scanner(blur=-0.7, noise=22.0),
    Scanner(noise=12.0, noise_grain=0.8, contrast=1.25),
    Scanner(blur=0.5, contrast=0.8, offset=15.0),
    Scanner(contrast=1.1, offset=-20.0, noise=6.0),
)
MR_SCANNERS = (
    Scanner(blur=0.9, noise=0.01, noise_grain=1.0),
    Scanner(blur=-0.5, noise=0.05),
    Scanner(contrast=0.6, noise=0.02),
    Scanner(contrast=1.6),
    Scanner(inverted=1.0, contrast=0.9),
)


def random_scanner(modality: str, generator: Generator) -> Scanner:
    """A scanner drawn from a range somewhat wider than the listed ones span."""
    draw = torch.rand(8, generator=generator).tolist()
    noise_is_on = draw[1] < 0.7
    if modality == "CT":
        return Scanner(
            blur=-0.8 + 1.9 * draw[0],
            noise=28.0 * draw[2] ** 2 * noise_is_on,
            noise_grain=1.2 * draw[3],
            contrast=0.75 + 0.6 * draw[4],
            offset=60.0 * (draw[5] - 0.5),
        )
    return Scanner(
        blur=-0.6 + 1.7 * draw[0],
        noise=0.06 * draw[2] ** 2 * noise_is_on,
        noise_grain=1.2 * draw[3],
        contrast=2.0 ** (2.0 * draw[4] - 1.0),
        inverted=float(draw[6] < 0.35) * (0.6 + 0.4 * draw[5]),
    )


def see_through(
    values: Float[Tensor, "B X Y Z"],
    scanners: list[Scanner],
    modality: str,
    generator: Generator | None = None,
) -> Float[Tensor, "B X Y Z"]:
    """The volumes as their scanners would have seen them; in-plane kernels act along X and Y, as in CT.

    Args:
        values: HU for CT, profile units in [0, 1] for MR.
        generator: of the values' device; draws the noise.
    """
    p = {
        field.name: values.new_tensor([getattr(scanner, field.name) for scanner in scanners])[
            :, None, None, None
        ]
        for field in fields(Scanner)
    }
    if modality == "CT":
        body = torch.sigmoid((values + 300.0) / 40.0)  # air stays air
        seen = values + body * (p["offset"] + (p["contrast"] - 1.0) * (values - 40.0).clamp(-200.0, 600.0))
    else:
        body = torch.sigmoid((values - 0.04) / 0.01)
        tone = values.clamp(0.0, 1.0) ** p["contrast"]
        seen = torch.lerp(tone, torch.lerp(tone, 1.0 - tone, body), p["inverted"])
    smooth = blurred(seen, p["blur"].abs().flatten())
    seen = torch.where(p["blur"] < 0, 2.0 * seen - smooth, smooth)
    grain = torch.randn(values.shape, generator=generator, device=values.device, dtype=values.dtype)
    grain = blurred(grain, p["noise_grain"].flatten())
    grain = grain / grain.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    if modality == "CT":
        return (seen + p["noise"] * grain).clamp(-1024.0, 3071.0)
    return (seen + p["noise"] * body * grain).clamp(0.0, 1.0)


def blurred(volumes: Float[Tensor, "B X Y Z"], sigma_voxels: Float[Tensor, " B"]) -> Float[Tensor, "B X Y Z"]:
    """Each volume under its own in-plane Gaussian; a standard deviation of 0 changes nothing."""
    reach = torch.arange(-KERNEL_REACH, KERNEL_REACH + 1, device=volumes.device, dtype=volumes.dtype)
    kernel = torch.exp(-0.5 * (reach / sigma_voxels.clamp_min(1e-2)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[..., None, None, None]  # (B, 9, 1, 1, 1)
    reaching = (KERNEL_REACH, KERNEL_REACH)
    for axis, ends in ((1, (0, 0, 0, 0, *reaching)), (2, (0, 0, *reaching, 0, 0))):
        padded = F.pad(volumes[None], ends, mode="replicate")[0]
        smooth = torch.zeros_like(volumes)
        for tap in range(len(reach)):
            smooth += kernel[:, tap] * padded.narrow(axis, tap, volumes.shape[axis])
        volumes = smooth
    return volumes

"""Random crops of prepared scans, kept on the training device: the diet of a tokenizer.

Half of the crops are seen through a simulated scanner, some are squeezed or stretched: a tokenizer must serve
sites and patients that it never met.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from meduet_training.data.augmentation.scanners import random_scanner, see_through
from meduet_training.data.caches.prepared import WorkingScan

BODY_SHARE = 0.4  # of a crop at least, where the scan allows it
ATTEMPTS = 8
PLAIN_SHARE = 0.5  # of the crops stay as they were scanned
STRETCH = (0.8, 1.25)


class CropSampler:
    """Draws batches of one modality; each domain is drawn equally often (C-12).

    Args:
        scans: all of one modality; their voxels go to the device, their body masks stay.
        side: voxels along each axis of a crop.
    """

    def __init__(self, scans: list[WorkingScan], side: int, device: torch.device, seed: int) -> None:
        self.modality = scans[0].modality
        self.side = side
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator(device).manual_seed(seed)
        self.domains: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for scan in scans:
            values, body = _at_least(torch.from_numpy(scan.values), torch.from_numpy(scan.body), side)
            self.domains.setdefault(scan.domain, []).append((values.to(device), body))

    def draw(self, count: int) -> Float[Tensor, "B X Y Z"]:
        """Crops in HU (CT) or profile units (MR), turned and flipped at random."""
        plain = round(PLAIN_SHARE * count)
        crops = torch.stack([self._crop() for _ in range(count)])
        scanners = [random_scanner(self.modality, self.generator) for _ in range(count - plain)]
        seen = see_through(crops[plain:], scanners, self.modality, self.noise)
        return torch.cat([crops[:plain], seen])

    def _crop(self) -> Float[Tensor, "X Y Z"]:
        names = list(self.domains)
        scans = self.domains[names[self._integer(len(names))]]
        values, body = scans[self._integer(len(scans))]
        wanted = self._integer(3)  # 0: as it is; 1, 2: stretched
        scale = 1.0 if wanted == 0 else STRETCH[0] + (STRETCH[1] - STRETCH[0]) * self._fraction()
        cut = min(int(self.side * scale), *values.shape)
        for _ in range(ATTEMPTS):
            corner = [self._integer(size - cut + 1) for size in values.shape]
            box = tuple(slice(start, start + cut) for start in corner)
            if body[box].float().mean() >= BODY_SHARE:
                break
        crop = values[box].float()
        if cut != self.side:
            crop = F.interpolate(
                crop[None, None], size=(self.side,) * 3, mode="trilinear", align_corners=True
            )[0, 0]
        order = torch.randperm(3, generator=self.generator).tolist()
        flips = [axis for axis in range(3) if self._fraction() < 0.5]
        return crop.permute(order).flip(flips)

    def _integer(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))

    def _fraction(self) -> float:
        return float(torch.rand((), generator=self.generator))


def _at_least(values: Tensor, body: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Pad a thin scan with what it shows at its border, so that a crop fits."""
    missing = [max(0, side - size) for size in values.shape]
    if not any(missing):
        return values, body
    padding = [amount for gap in reversed(missing) for amount in (gap // 2, gap - gap // 2)]
    padded = F.pad(values.float()[None, None], padding, mode="replicate")[0, 0].to(values.dtype)
    return padded, F.pad(body, padding)

"""Crops of latents with their factors and masks, as the training of a ControlNet draws them (M-40)."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.data.caches.masks import MaskEntry
from meduet_training.data.sources.factors import FactorChoice, FactorSource


class ControlSource(FactorSource):
    """A `FactorSource` whose crops have masks.

    Args:
        masks: of each entry.
        names: of the model's classes.
    """

    def __init__(
        self,
        entries: Sequence[FactorEntry],
        masks: Sequence[MaskEntry],
        names: Sequence[str],
        size: tuple[int, int, int],
        seed: int,
    ) -> None:
        super().__init__(entries, size, seed)
        self._masks, self._names = list(masks), list(names)

    @property
    def sha256(self) -> str:
        masks = [(mask.path.name, mask.names) for mask in self._masks]
        return hashlib.sha256(f"{super().sha256} {masks} {self._names}".encode()).hexdigest()

    def read(self, choices: Sequence[FactorChoice]) -> dict[str, Tensor]:
        masks = torch.stack([self._mask(choice) for choice in choices])
        return super().read(choices) | {"mask": masks}

    def _mask(self, choice: FactorChoice) -> Tensor:
        """(K, x, y, z): `mask_fractions` of the crop."""
        entry, sides = self._masks[choice.scan], self.latent_shape[1:]
        patch = sides[0] // self.size[0]
        i, j, k = choice.corner
        found = entry.read((i * patch, j * patch, k * patch), sides)
        mask = torch.zeros(len(self._names), *sides)
        mask.index_add_(0, torch.tensor([self._names.index(name) for name in entry.names]), found)
        return mask

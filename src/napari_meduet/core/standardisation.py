"""Standardisation of latents: each channel gets mean 0 and standard deviation 1 (specification, section 3).

The networks read and write standardised latents; a tokenizer reads and writes latents on its own scale. The
numbers are measured over the training data and stored on the model card (`models/card.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LatentStandardisation:
    """Mean and standard deviation of each latent channel.

    The methods take one latent (C, x, y, z) or a batch (B, C, x, y, z), on any device.
    """

    mean: Float[Tensor, "C 1 1 1"]
    std: Float[Tensor, "C 1 1 1"]

    @classmethod
    def of_channels(
        cls, mean: Sequence[float] | Float[Tensor, " C"], std: Sequence[float] | Float[Tensor, " C"]
    ) -> "LatentStandardisation":
        """Return the standardisation with one mean and one standard deviation for each channel."""
        mean, std = (torch.as_tensor(numbers, dtype=torch.float32) for numbers in (mean, std))
        return cls(mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1))

    def standardised(self, latent: Float[Tensor, "*B C x y z"]) -> Float[Tensor, "*B C x y z"]:
        """Return a latent of the tokenizer with mean 0 and standard deviation 1 in each channel."""
        return (latent - self.mean.to(latent.device)) / self.std.to(latent.device)

    def standardised_log_variance(
        self, log_variance: Float[Tensor, "*B C x y z"]
    ) -> Float[Tensor, "*B C x y z"]:
        """Return the log-variance of the standardised latent, from that of the tokenizer's latent."""
        return log_variance - 2 * self.std.to(log_variance.device).log()

    def restored(self, latent: Float[Tensor, "*B C x y z"]) -> Float[Tensor, "*B C x y z"]:
        """Return a standardised latent on the tokenizer's scale. This is the inverse of `standardised`."""
        return latent * self.std.to(latent.device) + self.mean.to(latent.device)

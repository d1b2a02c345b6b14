"""Masked autoencoding of latents (He et al. 2022): predict the three quarters of the tokens that are hidden.

The student is a MeDUET network, so its encoder can initialise others and its factors are measured as those of
MeDUET. Only visible tokens are encoded. Content and style pass through the projections of MeDUET, but no loss
separates them. There is no teacher.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from napari_meduet.core.demixing import draw_mask
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.objective import Batch
from napari_meduet.core.patches import patchify


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """Options of masked autoencoding."""

    total_steps: int = 200_000  # as MeDUET's pretraining (specification, section 6)
    mask_ratio: float = 0.75  # He et al. 2022, Sec. 4

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1; got {self.total_steps}.")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be between 0 and 1; got {self.mask_ratio}.")

    @property
    def pairing(self) -> None:
        """None: volumes are not paired."""

    def draw(self, network: MeDUETConfig, generator: Generator) -> dict[str, Float[Tensor, "L"]]:
        """Return the random numbers of one row of a batch: its mask, 1 for hidden tokens."""
        return {"mask": draw_mask(network.num_tokens, self.mask_ratio, generator)}

    def build(self, network: MeDUETConfig) -> "MaskedAutoencoder":
        """Build a student of this network."""
        return MaskedAutoencoder(network, self)


def token_error(
    predicted: Float[Tensor, "B C X Y Z"], clean: Float[Tensor, "B C X Y Z"], size: int
) -> Float[Tensor, "B L"]:
    """Return the mean squared error of each cube of `size`^3 voxels."""
    return patchify((predicted - clean).float().square(), size).mean(dim=-1)


def mean_where(error: Float[Tensor, "B L"], mask: Float[Tensor, "B L"]) -> Float[Tensor, "B"]:
    """Return the mean error of each row over the tokens in its mask; 0 for an empty mask."""
    return (error * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def masked_loss(error: Float[Tensor, "B L"], mask: Float[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Return the mean squared error of the hidden tokens (He et al. 2022).

    Each row has the same weight, whatever the number of its hidden tokens.

    Args:
        mask: 1 for hidden tokens.
    """
    return mean_where(error, mask).mean()


def visible_positions(mask: Float[Tensor, "B L"], num_visible: int) -> Int[Tensor, "B V"]:
    """Return the positions of the visible tokens of each row, in raster order.

    Args:
        num_visible: number of visible tokens of every row. It is an argument so that shapes do not depend on
            values (torch.compile).
    """
    return mask.argsort(dim=1, stable=True)[:, :num_visible]


class MaskedAutoencoder(nn.Module):
    """A MeDUET student that predicts hidden tokens from visible ones."""

    def __init__(self, network: MeDUETConfig, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        self.student = MeDUET(network)
        self.num_visible = network.num_tokens - round(network.num_tokens * config.mask_ratio)
        # This pretext has no domain loss, and DDP waits for a gradient of every trainable parameter.
        self.student.content_domain.requires_grad_(False)
        self.student.style_domain.requires_grad_(False)

    def forward(self, batch: Batch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Return the loss of the batch as `masked` and as `total`."""
        latent, mask = batch["latent"], batch["mask"]
        predicted = self.student.decoder(self._encode(latent, mask), 1 - mask)
        loss = masked_loss(token_error(predicted, latent, self.student.config.patch_size), mask)
        return {"masked": loss, "total": loss}

    def finish_step(self, step: int) -> None:
        """Do nothing after an optimizer step: there is no teacher."""

    def _encode(
        self, latent: Float[Tensor, "B C X Y Z"], mask: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L D"]:
        """Return fused tokens; hidden ones are zero, and the decoder replaces them by its own token."""
        encoder, disentangle = self.student.encoder, self.student.disentangle
        tokens = encoder.embed(latent)
        positions = visible_positions(mask, self.num_visible)
        positions = positions.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])  # (B, V, D)
        visible = encoder.transformer(tokens.gather(1, positions))
        on_grid = torch.zeros_like(tokens, dtype=visible.dtype).scatter(1, positions, visible)
        return self.student.decoder.fuse(*disentangle(on_grid, mask))

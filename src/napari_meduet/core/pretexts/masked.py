"""Masked autoencoding of latents (He et al. 2022): three quarters of the tokens are hidden and predicted.

The student is a MeDUET network, so that its encoder starts others and its factors are measured as MeDUET's
are. Only visible tokens are encoded; content and style pass through the same two projections as in MeDUET,
but nothing here asks them to differ. There is no teacher.
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
    """Masked autoencoding."""

    total_steps: int = 200_000  # specification, section 6, the length of MeDUET's pretraining
    mask_ratio: float = 0.75  # He et al. 2022, Sec. 4

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1; got {self.total_steps}.")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio lies between 0 and 1; got {self.mask_ratio}.")

    @property
    def pairing(self) -> None:
        """Volumes are not paired."""

    def draw(self, network: MeDUETConfig, generator: Generator) -> dict[str, Tensor]:
        """The random numbers of one row of a batch: its mask, 1 where a token is hidden."""
        return {"mask": draw_mask(network.num_tokens, self.mask_ratio, generator)}

    def build(self, network: MeDUETConfig) -> "MaskedAutoencoder":
        """A student of this network."""
        return MaskedAutoencoder(network, self)


def token_error(
    predicted: Float[Tensor, "B C X Y Z"], clean: Float[Tensor, "B C X Y Z"], size: int
) -> Float[Tensor, "B L"]:
    """Mean squared error of each cube of `size` voxels."""
    return patchify((predicted - clean).float().square(), size).mean(dim=-1)


def mean_where(error: Float[Tensor, "B L"], mask: Float[Tensor, "B L"]) -> Float[Tensor, "B"]:
    """Mean error of each row over the tokens under its mask; 0 where there are none."""
    return (error * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def masked_loss(error: Float[Tensor, "B L"], mask: Float[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Mean squared error of the hidden tokens; what was shown is not scored (He et al. 2022).

    Args:
        mask: 1 where the token was hidden. Each row counts the same, however many it hides.
    """
    return mean_where(error, mask).mean()


def visible_places(mask: Float[Tensor, "B L"], num_visible: int) -> Int[Tensor, "B V"]:
    """Where the visible tokens of each row lie, in raster order.

    Args:
        num_visible: of every row; given, so that shapes do not depend on values (torch.compile).
    """
    return mask.argsort(dim=1, stable=True)[:, :num_visible]


class MaskedAutoencoder(nn.Module):
    """A MeDUET student that predicts the tokens it was not shown."""

    def __init__(self, network: MeDUETConfig, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        self.student = MeDUET(network)
        self.num_visible = network.num_tokens - round(network.num_tokens * config.mask_ratio)
        # Nothing classifies domains here, and DDP waits for the gradient of every parameter that wants one.
        self.student.content_domain.requires_grad_(False)
        self.student.style_domain.requires_grad_(False)

    def forward(self, batch: Batch, step: int) -> dict[str, Float[Tensor, ""]]:
        """The loss of the batch, as `masked` and as `total`."""
        latent, mask = batch["latent"], batch["mask"]
        predicted = self.student.decoder(self._encode(latent, mask), 1 - mask)
        loss = masked_loss(token_error(predicted, latent, self.student.config.patch_size), mask)
        return {"masked": loss, "total": loss}

    def finish_step(self, step: int) -> None:
        """Nothing follows an optimizer step: there is no teacher."""

    def _encode(
        self, latent: Float[Tensor, "B C X Y Z"], mask: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L D"]:
        """Fused tokens; those that were hidden hold nothing, and the decoder puts its own in their place."""
        encoder, disentangle = self.student.encoder, self.student.disentangle
        tokens = encoder.embed(latent)
        places = (
            visible_places(mask, self.num_visible).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        )  # (B, V, D)
        seen = encoder.transformer(tokens.gather(1, places))
        on_grid = torch.zeros_like(tokens, dtype=seen.dtype).scatter(1, places, seen)
        return self.student.decoder.fuse(*disentangle(on_grid, mask))

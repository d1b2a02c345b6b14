"""The MeDUET network: encoder, disentangle, aggregate, decoder and domain classifiers (M-14 to M-18).

    latent -> encoder -> tokens -> disentangle -> content, style -> aggregate -> decoder -> latent

Latents are standardised per channel. `objective.py` trains the network.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.disentanglement import DomainClassifier, ReverseGradient
from napari_meduet.core.latent_grid import LatentGrid
from napari_meduet.core.patches import patchify, unpatchify
from napari_meduet.core.positions import sincos_positions
from napari_meduet.core.transformer import Transformer, initialise


@dataclass(frozen=True, kw_only=True)
class MeDUETConfig(LatentGrid):
    """Sizes of the network; the defaults are the paper's (M-14 to M-18)."""

    grid: tuple[int, int, int] = (6, 6, 6)  # tokens along each axis: a latent of 24^3
    width: int = 768
    depth: int = 12
    heads: int = 12
    content_width: int = 768
    style_width: int = 192
    decoder_width: int = 384
    decoder_depth: int = 8
    decoder_heads: int = 12
    mlp_ratio: int = 4
    num_domains: int = 10

    def __post_init__(self) -> None:
        for name, width, heads in (
            ("width", self.width, self.heads),
            ("decoder_width", self.decoder_width, self.decoder_heads),
        ):
            if width % heads:
                raise ValueError(f"{name} must be a multiple of its {heads} attention heads; got {width}.")
            if width % 6:
                raise ValueError(f"{name} must be a multiple of 6 for the position embedding; got {width}.")
        if min(self.grid) < 1 or self.num_domains < 1:
            raise ValueError(f"grid {self.grid} and num_domains {self.num_domains} must be at least 1.")

    @classmethod
    def base(cls, **changes: Any) -> "MeDUETConfig":
        """The paper's network."""
        return replace(cls(), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "MeDUETConfig":
        """A network of width 384 and depth 8, for at most 500 scans on one GPU (specification, section 6).

        Factors and decoder keep the paper's proportions.
        """
        sizes = cls(
            width=384,
            depth=8,
            heads=6,
            content_width=384,
            style_width=96,
            decoder_width=192,
            decoder_depth=6,
            decoder_heads=6,
        )
        return replace(sizes, **changes)

    @classmethod
    def tiny(cls, **changes: Any) -> "MeDUETConfig":
        """A network of width 192 and depth 6, for minutes on two CPU cores (specification, section 6).

        The decoder is as wide as the encoder, because each token must still become 256 latent values.
        """
        sizes = cls(
            width=192,
            depth=6,
            heads=6,
            content_width=192,
            style_width=48,
            decoder_width=192,
            decoder_depth=4,
            decoder_heads=6,
        )
        return replace(sizes, **changes)


class Encoder(nn.Module):
    """Patch embedding and transformer: a latent becomes tokens (M-14)."""

    positions: Float[Tensor, "L D"]

    def __init__(self, config: MeDUETConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.patch_embedding = nn.Linear(config.patch_values, config.width)
        self.register_buffer("positions", sincos_positions(config.grid, config.width), persistent=False)
        self.transformer = Transformer(
            width=config.width, depth=config.depth, num_heads=config.heads, mlp_ratio=config.mlp_ratio
        )

    def forward(self, latent: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B L D"]:
        return self.transformer(self.embed(latent))

    def embed(self, latent: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B L D"]:
        """Return patch embeddings with positions, the input of the transformer."""
        return self.patch_embedding(patchify(latent, self.patch_size)) + self.positions


class Disentangle(nn.Module):
    """Splits tokens into content and style (M-15).

    Style is smoothed over the 3^3 neighbours of each token in space. The published 1-D conv follows raster
    order, in which every sixth neighbour is on the opposite side of the volume (C-26).
    """

    def __init__(self, config: MeDUETConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.content = nn.Linear(config.width, config.content_width, bias=False)
        self.style = nn.Linear(config.width, config.style_width, bias=False)
        self.smooth = nn.Conv3d(
            config.style_width, config.style_width, 3, padding=1, groups=config.style_width, bias=False
        )

    def forward(
        self, tokens: Float[Tensor, "B L D"], mask: Float[Tensor, "B L"] | None = None
    ) -> tuple[Float[Tensor, "B L Dc"], Float[Tensor, "B L Ds"]]:
        """Return content and style of each token.

        Args:
            mask: 1 where the token comes from the partner. A token is smoothed only with tokens of its own
                volume. None: all tokens come from one volume.
        """
        style = self.style(tokens)
        if mask is None:
            return self.content(tokens), self._smooth(style)
        from_j = mask.unsqueeze(-1).to(style.dtype)  # (B, L, 1)
        from_i = 1 - from_j
        style = self._smooth(style * from_i) * from_i + self._smooth(style * from_j) * from_j
        return self.content(tokens), style

    def _smooth(self, style: Float[Tensor, "B L Ds"]) -> Float[Tensor, "B L Ds"]:
        x, y, z = self.grid
        on_grid = rearrange(style, "b (x y z) d -> b d x y z", x=x, y=y, z=z)
        return rearrange(self.smooth(on_grid), "b d x y z -> b (x y z) d")


class Decoder(nn.Module):
    """Fuses content and style tokens and decodes them into a latent (M-16, M-17).

    A learned constant replaces the encoder's cls token of the published decoder. That token has seen both
    mixed volumes and gives the decoder information that is neither content nor style (C-03).
    """

    positions: Float[Tensor, "L D"]

    def __init__(self, config: MeDUETConfig) -> None:
        super().__init__()
        self.grid, self.patch_size = config.grid, config.patch_size
        self.aggregate = nn.Linear(config.content_width + config.style_width, config.width)
        self.embedding = nn.Linear(config.width, config.decoder_width)
        self.constant = nn.Parameter(torch.empty(1, 1, config.decoder_width))
        self.hidden_token = nn.Parameter(torch.empty(1, 1, config.decoder_width))
        positions = sincos_positions(config.grid, config.decoder_width)
        self.register_buffer("positions", positions, persistent=False)
        self.transformer = Transformer(
            width=config.decoder_width,
            depth=config.decoder_depth,
            num_heads=config.decoder_heads,
            mlp_ratio=config.mlp_ratio,
        )
        self.prediction = nn.Linear(config.decoder_width, config.patch_values)

    def fuse(
        self, content: Float[Tensor, "B L Dc"], style: Float[Tensor, "B L Ds"]
    ) -> Float[Tensor, "B L D"]:
        """Return content and style of each token, projected to the decoder's width."""
        return self.embedding(self.aggregate(torch.cat([content, style], dim=-1)))

    def forward(
        self, fused: Float[Tensor, "B L D"], visible: Float[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the latent of fused tokens.

        Args:
            visible: 1 where the decoder sees the token; a learned token replaces all others. None: the
                decoder sees all tokens.
        """
        if visible is not None:
            fused = torch.where(visible.unsqueeze(-1) > 0, fused, self.hidden_token.to(fused.dtype))
        tokens = fused + self.positions
        constant = self.constant.expand(tokens.shape[0], -1, -1)
        tokens = self.transformer(torch.cat([constant, tokens], dim=1))[:, 1:]  # (B, L, D)
        return unpatchify(self.prediction(tokens), self.grid, self.patch_size)


class MeDUET(nn.Module):
    """Encodes latents into content and style tokens, and decodes them.

    Examples:
        >>> network = MeDUET(MeDUETConfig.tiny())
        >>> content, style = network.encode(torch.zeros(2, 4, 24, 24, 24))
        >>> content.shape, style.shape
        (torch.Size([2, 216, 192]), torch.Size([2, 216, 48]))
        >>> network.decode(content, style).shape
        torch.Size([2, 4, 24, 24, 24])
    """

    def __init__(self, config: MeDUETConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.disentangle = Disentangle(config)
        self.decoder = Decoder(config)
        self.content_domain = DomainClassifier(config.content_width, config.num_domains)
        self.style_domain = DomainClassifier(config.style_width, config.num_domains)
        self.apply(initialise)
        nn.init.normal_(self.decoder.constant, std=0.02)  # std of learned tokens in MAE
        nn.init.normal_(self.decoder.hidden_token, std=0.02)

    def encode(
        self, latent: Float[Tensor, "B C X Y Z"], mask: Float[Tensor, "B L"] | None = None
    ) -> tuple[Float[Tensor, "B L Dc"], Float[Tensor, "B L Ds"]]:
        """Return content and style tokens of latents of the configured grid.

        Args:
            mask: for a mixture, 1 where the patch comes from the partner. None: the latent is not a mixture.

        Raises:
            ValueError: the latents have another shape than the configured windows.
        """
        self.config.check_window(latent.shape[1:])
        return self.disentangle(self.encoder(latent), mask)

    def decode(
        self, content: Float[Tensor, "B L Dc"], style: Float[Tensor, "B L Ds"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the latent with this content and this style."""
        return self.decoder(self.decoder.fuse(content, style))

    def domain_logits(
        self, content: Float[Tensor, "B Dc"], style: Float[Tensor, "B Ds"]
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Return domain logits of pooled content, behind gradient reversal, and of pooled style."""
        return self.content_domain(ReverseGradient.apply(content)), self.style_domain(style)

"""SiT and DiT: a transformer that every condition modulates, block by block (M-30, Eqs. 18-20).

    latent -> patches -> blocks, modulated by time, content and style -> patches -> prediction

Blocks are those of the MeDUET encoder, layer norm's affine kept, so that every tensor of a pretrained encoder
loads. All that modulates begins at zero, and so does the prediction: a new generator returns exactly 0.
Modulation is additive in time and conditions, so a sampler computes both parts once (`time_modulation`,
`condition_modulation`) and none of it again at each evaluation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_meduet.core.latent_grid import LatentGrid
from napari_meduet.core.patches import patchify, unpatchify
from napari_meduet.core.positions import interpolated_positions, sincos_positions
from napari_meduet.core.synthesis.conditioning import FactorCondition
from napari_meduet.core.transformer import Block, Transformer, initialise

FREQUENCIES = 256  # sinusoids that tell the time (DiT)
TIME_SCALE = 1000.0  # the sinusoids are made for steps of 0 to 1000
PER_BLOCK = 6  # scale, shift and gate, of attention and of the MLP

Prediction = Literal["velocity", "data", "noise"]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(LatentGrid):
    """Sizes of a generator; the defaults are SiT-B/4 on 4 x 64 x 64 x 32 latents (M-30).

    Attributes:
        prediction: what comes out; "velocity" (SiT), "noise" (DiT), or "data" for networks narrower than a
            patch has numbers: they cannot carry its noise (Li and He 2025).
        spatial_content: whether the content tokens of every place can be given, for the same anatomy.
        positions_of: the grid whose positions are stretched over this one, that of the encoder whose weights
            it starts from (the paper); None: positions of its own, a token as far from the next as ever.
        refinement_channels: of a small convolutional network behind the blocks, for generators so small that
            their patches do not meet at the seams; 0 (the paper): none.
        layout_rank: of a linear guess, from the pooled factors, at the content of the places where none is
            given, for trainings too short to learn where organs lie from the modulation; 0 (the paper): none.
        whitens_factors: whether a training first fits `FactorCondition` to its data; the paper does not.
    """

    grid: tuple[int, int, int] = (16, 16, 8)  # tokens along each axis
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    content_width: int = 768
    style_width: int = 192
    prediction: Prediction = "velocity"
    spatial_content: bool = True
    positions_of: tuple[int, int, int] | None = None
    refinement_channels: int = 0
    layout_rank: int = 0
    whitens_factors: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not split into {self.heads} attention heads.")
        if self.width % 6:
            raise ValueError(f"width must be a multiple of 6 for its positions; got {self.width}.")
        if min(self.grid) < 1:
            raise ValueError(f"grid {self.grid} must be at least 1 along each axis.")
        if not 0 <= 2 * self.refinement_channels <= self.width:
            raise ValueError(
                f"refinement_channels must lie from 0 to half the width; got {self.refinement_channels}."
            )

    @classmethod
    def base(cls, **changes: Any) -> "GeneratorConfig":
        """The paper's SiT-B/4."""
        return replace(cls(), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "GeneratorConfig":
        """384 x 8 on latents of 32^3 (192 mm), for one GPU; with the small MeDUET."""
        sizes = cls(
            grid=(8, 8, 8),
            width=384,
            depth=8,
            heads=6,
            content_width=384,
            style_width=96,
            whitens_factors=True,
        )
        return replace(sizes, **changes)

    @classmethod
    def tiny(cls, **changes: Any) -> "GeneratorConfig":
        """192 x 6 on latents of 24^3 (144 mm), for two CPU cores; with the tiny MeDUET."""
        sizes = cls(
            grid=(6, 6, 6),
            width=192,
            depth=6,
            heads=6,
            content_width=192,
            style_width=48,
            prediction="data",
            refinement_channels=24,
            layout_rank=32,
            whitens_factors=True,
        )
        return replace(sizes, **changes)

    @property
    def num_modulations(self) -> int:
        """Vectors that modulate: six a block, two before the prediction, one for the content of places that
        is added to it, one for the refinement."""
        return PER_BLOCK * self.depth + 2 + self.spatial_content + (self.refinement_channels > 0)

    def positions(self) -> Float[Tensor, "L D"]:
        if self.positions_of is None:
            return sincos_positions(self.grid, self.width)
        return interpolated_positions(self.positions_of, self.grid, self.width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """What a row of a batch is asked to show.

    Attributes:
        content, style: c0 and s0 (M-21), not normalised.
        drops_content, drops_style: where the learnt null stands in their place.
        spatial_content: content tokens of every place, 0 where there are none; None: of no row.
        mask: share of each class in each latent voxel, for a ControlNet (control.mask_shares).
    """

    content: Float[Tensor, "B Dc"]
    style: Float[Tensor, "B Ds"]
    drops_content: Bool[Tensor, " B"]
    drops_style: Bool[Tensor, " B"]
    spatial_content: Float[Tensor, "B L Dc"] | None = None
    mask: Float[Tensor, "B K X Y Z"] | None = None


def time_embedding(time: Float[Tensor, " B"]) -> Float[Tensor, "B F"]:
    """Cosines and sines of a time from 0 to 1 at 128 frequencies (DiT)."""
    half = FREQUENCIES // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
    angles = TIME_SCALE * time.float().unsqueeze(-1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def modulated(
    tokens: Float[Tensor, "B L D"], scale: Float[Tensor, "B D"], shift: Float[Tensor, "B D"]
) -> Float[Tensor, "B L D"]:
    """Tokens (1 + gamma) times as large, plus beta. Eq. (19)."""
    return tokens * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def modulated_block(
    block: Block, tokens: Float[Tensor, "B L D"], modulation: Float[Tensor, "B 6 D"]
) -> Float[Tensor, "B L D"]:
    """A block whose two branches are modulated before, and gated behind. Eq. (20)."""
    scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = modulation.unbind(dim=1)
    attended = block.attention(modulated(block.attention_norm(tokens), scale_a, shift_a))
    tokens = tokens + gate_a.unsqueeze(1) * attended
    mixed = block.mlp(modulated(block.mlp_norm(tokens), scale_m, shift_m))
    return tokens + gate_m.unsqueeze(1) * mixed


def transformed(
    transformer: Transformer, number: int, tokens: Float[Tensor, "B L D"], modulation: Float[Tensor, "B M D"]
) -> Float[Tensor, "B L D"]:
    """Tokens behind a block, with its part of the modulation of all."""
    block = cast(Block, transformer.blocks[number])
    own = modulation[:, PER_BLOCK * number : PER_BLOCK * (number + 1)]
    if transformer.recomputes and torch.is_grad_enabled():
        return checkpoint(modulated_block, block, tokens, own, use_reentrant=False, preserve_rng_state=False)
    return modulated_block(block, tokens, own)


class ConvRefiner(nn.Module):
    """Corrects a prediction where patches meet, from what lies on both sides of the seam (ours).

    Three convolutions that see the noised latent and the prediction; they begin by changing nothing.
    """

    def __init__(self, latent_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.enter = nn.Conv3d(2 * latent_channels, channels, 3, padding=1)
        self.mix = nn.Conv3d(channels, channels, 3, padding=1)
        self.leave = nn.Conv3d(channels, latent_channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast(Tensor, self.leave.bias))

    def forward(
        self,
        latent: Float[Tensor, "B C X Y Z"],
        prediction: Float[Tensor, "B C X Y Z"],
        modulation: Float[Tensor, "B D"],
    ) -> Float[Tensor, "B C X Y Z"]:
        """The prediction, corrected; the first numbers of the modulation scale and shift the channels."""
        scale, shift = modulation[:, : 2 * self.channels, None, None, None].chunk(2, dim=1)
        features = self.enter(torch.cat([latent, prediction], dim=1)) * (1 + scale) + shift
        return prediction + self.leave(F.silu(self.mix(F.silu(features))))


class LayoutPrior(nn.Module):
    """Guesses the content of every place from pooled factors (ours); begins by guessing nothing."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(config.content_width + config.style_width, config.layout_rank)
        self.leave = nn.Linear(config.layout_rank, config.num_tokens * config.width)

    def forward(
        self, content: Float[Tensor, "B Dc"], style: Float[Tensor, "B Ds"], width: int
    ) -> Float[Tensor, "B L D"]:
        return self.leave(self.enter(torch.cat([content, style], dim=-1))).unflatten(-1, (-1, width))


class Generator(nn.Module):
    """Predicts the velocity, the noise or the data of a noised latent, given time and conditions."""

    positions: Float[Tensor, "L D"]

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embedding = nn.Linear(config.patch_values, width)
        self.register_buffer("positions", config.positions(), persistent=False)
        self.transformer = Transformer(
            width=width, depth=config.depth, num_heads=config.heads, mlp_ratio=config.mlp_ratio
        )
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.content = FactorCondition(config.content_width)
        self.style = FactorCondition(config.style_width)
        numbers = config.num_modulations * width
        self.from_time = nn.Linear(width, numbers)
        self.from_content = nn.Linear(config.content_width, numbers, bias=False)
        self.from_style = nn.Linear(config.style_width, numbers, bias=False)
        self.spatial_content = (
            nn.Linear(config.content_width, width, bias=False) if config.spatial_content else None
        )
        self.prediction = nn.Linear(width, config.patch_values)
        self.content_prediction = (
            nn.Linear(width, config.patch_values, bias=False) if config.spatial_content else None
        )
        channels = config.refinement_channels
        self.refinement = ConvRefiner(config.latent_channels, channels) if channels else None
        self.layout = LayoutPrior(config) if config.layout_rank else None
        self.apply(initialise)
        if self.layout is not None:
            nn.init.zeros_(self.layout.leave.weight)
        for layer in (self.from_time, self.from_content, self.from_style, self.prediction):
            nn.init.zeros_(layer.weight)
        for layer in (self.spatial_content, self.content_prediction):
            if layer is not None:
                nn.init.zeros_(layer.weight)

    def forward(
        self, latent: Float[Tensor, "B C X Y Z"], time: Float[Tensor, " B"], conditions: Conditions
    ) -> Float[Tensor, "B C X Y Z"]:
        modulation = self.time_modulation(time) + self.condition_modulation(conditions)
        return self.predict(latent, modulation, self.spatial_tokens(conditions))

    def time_modulation(self, time: Float[Tensor, " B"]) -> Float[Tensor, "B M D"]:
        """What the time adds to the modulation of every block."""
        embedded = F.silu(self.time(time_embedding(time).to(self.from_time.weight.dtype)))
        return self._by_block(self.from_time(embedded))

    def condition_modulation(self, conditions: Conditions) -> Float[Tensor, "B M D"]:
        """What content and style each add to (gamma, beta, g) of every block, beside the time. Eq. (18)."""
        content = self.content(conditions.content, conditions.drops_content)
        style = self.style(conditions.style, conditions.drops_style)
        return self._by_block(self.from_content(F.silu(content)) + self.from_style(F.silu(style)))

    def spatial_tokens(self, conditions: Conditions) -> Float[Tensor, "B L D"] | None:
        """What the content of every place, or where there is none the layout, adds to the patches there."""
        given = conditions.spatial_content
        tokens = None if given is None or self.spatial_content is None else self.spatial_content(given)
        if self.layout is None:
            return tokens
        content = self.content(conditions.content, conditions.drops_content)
        style = self.style(conditions.style, conditions.drops_style)
        guessed = self.layout(content, style, self.config.width)
        if tokens is None or given is None:
            return guessed
        return torch.where((given != 0).any(dim=-1, keepdim=True), tokens, guessed)

    def predict(
        self,
        latent: Float[Tensor, "B C X Y Z"],
        modulation: Float[Tensor, "B M D"],
        spatial: Float[Tensor, "B L D"] | None = None,
        control: Sequence[Float[Tensor, "B L D"]] = (),
    ) -> Float[Tensor, "B C X Y Z"]:
        """The prediction, with all that does not depend on the latent computed before.

        Args:
            control: what a ControlNet adds to the tokens behind each of the first blocks (M-40).
        """
        tokens = self.embed(latent, spatial)
        for number in range(self.config.depth):
            tokens = transformed(self.transformer, number, tokens, modulation)
            if number < len(control):
                tokens = tokens + control[number]
        scale, shift, *others = modulation[:, PER_BLOCK * self.config.depth :].unbind(dim=1)
        patches = self.prediction(modulated(self.transformer.norm(tokens), scale, shift))
        if spatial is not None and self.content_prediction is not None:
            # past the blocks, whose width is full of the noised patch
            patches = patches + self.content_prediction(spatial * (1 + others[0].unsqueeze(1)))
        prediction = unpatchify(patches, self.config.grid, self.config.patch_size)
        if self.refinement is None:
            return prediction
        return self.refinement(latent, prediction, modulation[:, -1])

    def embed(
        self, latent: Float[Tensor, "B C X Y Z"], spatial: Float[Tensor, "B L D"] | None
    ) -> Float[Tensor, "B L D"]:
        """Tokens that know their patch, its place and what content lies there."""
        tokens = self.patch_embedding(patchify(latent, self.config.patch_size)) + self.positions
        return tokens if spatial is None else tokens + spatial

    def _by_block(self, numbers: Float[Tensor, "B N"]) -> Float[Tensor, "B M D"]:
        return rearrange(numbers, "b (m d) -> b m d", d=self.config.width)

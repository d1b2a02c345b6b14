"""SiT and DiT: a transformer whose blocks are modulated by time, content and style (M-30, Eqs. 18-20).

    latent -> patches -> blocks, modulated by time, content and style -> patches -> prediction

The blocks are those of the MeDUET encoder and keep the affine parameters of their layer norms, so every
tensor of a pretrained encoder loads. All modulation layers and the prediction layer start at zero, so a new
generator returns exactly 0. The modulation is a sum over time and conditions, so a sampler computes both
parts once (`time_modulation`, `condition_modulation`) and not again at each evaluation.
"""

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
from napari_meduet.core.time_embedding import TIME_WIDTH, time_embedding
from napari_meduet.core.transformer import Block, Transformer, initialise

PER_BLOCK = 6  # scale, shift and gate of attention and of the MLP

Prediction = Literal["velocity", "data", "noise"]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(LatentGrid):
    """Sizes of a generator; the defaults are SiT-B/4 on 4 x 64 x 64 x 32 latents (M-30).

    Attributes:
        prediction: output of the network: "velocity" (SiT), "noise" (DiT), or "data". A network that is
            narrower than the number of values in a patch cannot represent noise, so it predicts data (Li and
            He 2025).
        spatial_content: whether the generator accepts the content token of every position, which fixes the
            anatomy.
        positions_of: grid whose positions are interpolated to this grid; the paper uses the grid of the
            encoder that provides the initial weights. None: positions are computed for this grid, with the
            same distance between tokens.
        refinement_channels: channels of a small conv network behind the blocks. Small generators need it,
            because their patches do not match at the seams. 0 (the paper): no such network.
        layout_rank: rank of a linear prior that predicts the spatial content from the pooled factors. Short
            trainings need it, because they do not learn the positions of organs from the modulation. 0 (the
            paper): no prior.
        whitens_factors: whether a training first fits the whitening of `FactorCondition`; the paper does not.
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
            raise ValueError(
                f"width must be a multiple of its {self.heads} attention heads; got {self.width}."
            )
        if self.width % 6:
            raise ValueError(f"width must be a multiple of 6 for the position embedding; got {self.width}.")
        if min(self.grid) < 1:
            raise ValueError(f"grid {self.grid} must be at least 1 along each axis.")
        if not 0 <= 2 * self.refinement_channels <= self.width:
            raise ValueError(
                f"refinement_channels must be from 0 to half the width; got {self.refinement_channels}."
            )

    @classmethod
    def base(cls, **changes: Any) -> "GeneratorConfig":
        """The paper's SiT-B/4."""
        return replace(cls(), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "GeneratorConfig":
        """Width 384, depth 8, latents of 32^3 (192 mm): for one GPU and the small MeDUET."""
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
        """Width 192, depth 6, latents of 24^3 (144 mm): for two CPU cores and the tiny MeDUET."""
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
        """Number of modulation vectors.

        There are six for each block, two for the prediction, one for the spatial content that is added to
        the prediction, and one for the refinement.
        """
        return PER_BLOCK * self.depth + 2 + self.spatial_content + (self.refinement_channels > 0)

    def positions(self) -> Float[Tensor, "L D"]:
        """Return the position embedding of each token."""
        if self.positions_of is None:
            return sincos_positions(self.grid, self.width)
        return interpolated_positions(self.positions_of, self.grid, self.width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Conditions of each row of a batch.

    Attributes:
        content, style: c0 and s0 (M-21), not normalised.
        drops_content, drops_style: rows in which the learned null replaces the factor.
        spatial_content: content token of every position, 0 if a row has none. None: no row has any.
        mask: fraction of each class in each latent voxel, for a ControlNet (`control.mask_fractions`).
    """

    content: Float[Tensor, "B Dc"]
    style: Float[Tensor, "B Ds"]
    drops_content: Bool[Tensor, " B"]
    drops_style: Bool[Tensor, " B"]
    spatial_content: Float[Tensor, "B L Dc"] | None = None
    mask: Float[Tensor, "B K X Y Z"] | None = None


def modulated(
    tokens: Float[Tensor, "B L D"], scale: Float[Tensor, "B D"], shift: Float[Tensor, "B D"]
) -> Float[Tensor, "B L D"]:
    """Modulated tokens, (1 + gamma) * tokens + beta. Eq. (20)."""
    return tokens * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def modulated_block(
    block: Block, tokens: Float[Tensor, "B L D"], modulation: Float[Tensor, "B 6 D"]
) -> Float[Tensor, "B L D"]:
    """Return the output of a block whose two branches are modulated at the input, gated at the output."""
    scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = modulation.unbind(dim=1)
    attended = block.attention(modulated(block.attention_norm(tokens), scale_a, shift_a))
    tokens = tokens + gate_a.unsqueeze(1) * attended
    mixed = block.mlp(modulated(block.mlp_norm(tokens), scale_m, shift_m))
    return tokens + gate_m.unsqueeze(1) * mixed


def transformed(
    transformer: Transformer, number: int, tokens: Float[Tensor, "B L D"], modulation: Float[Tensor, "B M D"]
) -> Float[Tensor, "B L D"]:
    """Run one block with its own part of the modulation, and return the tokens."""
    block = cast(Block, transformer.blocks[number])
    own = modulation[:, PER_BLOCK * number : PER_BLOCK * (number + 1)]
    if transformer.recomputes and torch.is_grad_enabled():
        return checkpoint(modulated_block, block, tokens, own, use_reentrant=False, preserve_rng_state=False)
    return modulated_block(block, tokens, own)


class ConvRefiner(nn.Module):
    """Three convs that correct a prediction at the seams between patches (this project).

    They read the noised latent and the prediction. They start as the identity.
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
        """Return the corrected prediction.

        The first entries of the modulation scale and shift the channels.
        """
        scale, shift = modulation[:, : 2 * self.channels, None, None, None].chunk(2, dim=1)
        features = self.enter(torch.cat([latent, prediction], dim=1)) * (1 + scale) + shift
        return prediction + self.leave(F.silu(self.mix(F.silu(features))))


class LayoutPrior(nn.Module):
    """Predicts the spatial content from pooled factors (this project); starts at zero."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(config.content_width + config.style_width, config.layout_rank)
        self.leave = nn.Linear(config.layout_rank, config.num_tokens * config.width)

    def forward(
        self, content: Float[Tensor, "B Dc"], style: Float[Tensor, "B Ds"], width: int
    ) -> Float[Tensor, "B L D"]:
        return self.leave(self.enter(torch.cat([content, style], dim=-1))).unflatten(-1, (-1, width))


class Generator(nn.Module):
    """Predicts the velocity, the noise or the data of a noised latent from time and conditions."""

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
        self.time = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
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
        """Return the part of the modulation that comes from the time."""
        embedded = F.silu(self.time(time_embedding(time).to(self.from_time.weight.dtype)))
        return self._by_block(self.from_time(embedded))

    def condition_modulation(self, conditions: Conditions) -> Float[Tensor, "B M D"]:
        """Sum of the (gamma, beta, g) of content and of style for every block. Eq. (18), Eq. (19).

        Each factor gives its own (gamma, beta, g) (Eq. 18); their sum (Eq. 19) is added to that of the time.
        """
        content = self.content(conditions.content, conditions.drops_content)
        style = self.style(conditions.style, conditions.drops_style)
        return self._by_block(self.from_content(F.silu(content)) + self.from_style(F.silu(style)))

    def spatial_tokens(self, conditions: Conditions) -> Float[Tensor, "B L D"] | None:
        """Return what the spatial content adds to the patch tokens.

        A row without spatial content gets the prediction of the layout prior, if the generator has one.
        """
        given = conditions.spatial_content
        tokens = None if given is None or self.spatial_content is None else self.spatial_content(given)
        if self.layout is None:
            return tokens
        content = self.content(conditions.content, conditions.drops_content)
        style = self.style(conditions.style, conditions.drops_style)
        prior = self.layout(content, style, self.config.width)
        if tokens is None or given is None:
            return prior
        return torch.where((given != 0).any(dim=-1, keepdim=True), tokens, prior)

    def predict(
        self,
        latent: Float[Tensor, "B C X Y Z"],
        modulation: Float[Tensor, "B M D"],
        spatial: Float[Tensor, "B L D"] | None = None,
        control: Sequence[Float[Tensor, "B L D"]] = (),
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the prediction for a latent.

        Args:
            modulation: sum of `time_modulation` and `condition_modulation`.
            spatial: result of `spatial_tokens`.
            control: additions of a ControlNet to the tokens behind each of the first blocks (M-40).
        """
        tokens = self.embed(latent, spatial)
        for number in range(self.config.depth):
            tokens = transformed(self.transformer, number, tokens, modulation)
            if number < len(control):
                tokens = tokens + control[number]
        scale, shift, *others = modulation[:, PER_BLOCK * self.config.depth :].unbind(dim=1)
        patches = self.prediction(modulated(self.transformer.norm(tokens), scale, shift))
        if spatial is not None and self.content_prediction is not None:
            # This path bypasses the blocks, because their width is needed for the noised patch.
            patches = patches + self.content_prediction(spatial * (1 + others[0].unsqueeze(1)))
        prediction = unpatchify(patches, self.config.grid, self.config.patch_size)
        if self.refinement is None:
            return prediction
        return self.refinement(latent, prediction, modulation[:, -1])

    def embed(
        self, latent: Float[Tensor, "B C X Y Z"], spatial: Float[Tensor, "B L D"] | None
    ) -> Float[Tensor, "B L D"]:
        """Return patch embeddings with positions and spatial content, the input of the blocks."""
        tokens = self.patch_embedding(patchify(latent, self.config.patch_size)) + self.positions
        return tokens if spatial is None else tokens + spatial

    def _by_block(self, numbers: Float[Tensor, "B N"]) -> Float[Tensor, "B M D"]:
        return rearrange(numbers, "b (m d) -> b m d", d=self.config.width)

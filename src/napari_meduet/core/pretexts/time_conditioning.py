"""Time conditioning: a sinusoidal embedding that scales and shifts features (specification, section 11)."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.time_embedding import TIME_WIDTH, time_embedding


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the time, followed by an MLP of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU()
        )

    def forward(self, time: Float[Tensor, "B"]) -> Float[Tensor, "B T"]:
        return self.mlp(time_embedding(time))


class FiLM(nn.Module):
    """Scales and shifts features by the time, h (γ + 1) + β; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(TIME_WIDTH, 2 * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)


class TokenFiLM(FiLM):
    """FiLM of tokens, whose width comes last."""

    def forward(self, features: Float[Tensor, "B L D"], time: Float[Tensor, "B T"]) -> Float[Tensor, "B L D"]:
        scale, shift = self.linear(time).unsqueeze(1).chunk(2, dim=-1)  # (B, 1, D) each
        return features * (scale + 1) + shift


class VolumeFiLM(FiLM):
    """FiLM of volumes, whose channels come second."""

    def forward(
        self, features: Float[Tensor, "B D X Y Z"], time: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B D X Y Z"]:
        scale, shift = rearrange(self.linear(time), "b (two d) -> two b d 1 1 1", two=2)
        return features * (scale + 1) + shift

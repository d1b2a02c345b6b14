"""`maisi`: MONAI's AutoencoderKlMaisi with weights that the user supplies (specification, M-11).

The network is MONAI's. This file runs it without MONAI's splits: the published configuration splits every
conv into slabs along y to save GPU memory. This is correct only if y is a multiple of 32 and at least 96. For
other sizes the split network raises an error or returns a latent that is too small. The weights do not depend
on the split, so the network without splits accepts every multiple of 4.

GroupNorm makes each voxel depend on the whole tile, so tiles join less exactly than those of `wavelet`. No
weights are shipped. `models/catalogue.py` knows where they are published and under which licence.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.errors import InputError
from napari_meduet.tokenizers.weight_files import read_tensors

if TYPE_CHECKING:
    from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi


@dataclass(frozen=True, kw_only=True)
class MaisiConfig:
    """Sizes of the network. The defaults are those of the published weights (M-11)."""

    num_channels: tuple[int, ...] = (64, 128, 256)
    num_res_blocks: tuple[int, ...] = (2, 2, 2)
    latent_channels: int = 4
    norm_num_groups: int = 32

    def __post_init__(self) -> None:
        if len(self.num_channels) != len(self.num_res_blocks):
            raise ValueError(
                "num_channels and num_res_blocks need one number for each level, so equal lengths; got "
                f"{len(self.num_channels)} and {len(self.num_res_blocks)}."
            )
        if any(channels % self.norm_num_groups for channels in self.num_channels):
            raise ValueError(
                f"num_channels must be multiples of norm_num_groups, {self.norm_num_groups}; got "
                f"{self.num_channels}."
            )

    @property
    def stride(self) -> tuple[int, int, int]:
        """Voxels per latent voxel, along x, y and z."""
        side = 2 ** (len(self.num_channels) - 1)
        return side, side, side


def maisi_network(
    config: MaisiConfig, num_splits: int = 1, norm_float16: bool = False, out_channels: int = 1
) -> "AutoencoderKlMaisi":
    """Return MONAI's network with these sizes and random weights.

    The same weights give the same function for every number of splits.

    Raises:
        InputError: MONAI is not installed.
    """
    try:
        from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
    except ImportError as error:
        raise InputError("The maisi tokenizer needs MONAI: pip install 'napari-meduet[maisi]'.") from error
    return AutoencoderKlMaisi(
        spatial_dims=3,
        in_channels=1,
        out_channels=out_channels,
        **asdict(config),
        attention_levels=(False,) * len(config.num_channels),
        norm_eps=1e-6,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
        num_splits=num_splits,
        dim_split=1,
        norm_float16=norm_float16,
    )


class MaisiTokenizer(nn.Module):
    """MAISI's autoencoder with the interface of a tokenizer. It was trained on CT in `ct-wide` (M-03)."""

    name = "maisi"
    halo = 9  # latent voxels: the reach of the convs in each direction
    bytes_per_latent_voxel = 140_000  # for decoding, measured by benchmarks/tokenizers.py

    def __init__(self, config: MaisiConfig | None = None) -> None:
        super().__init__()
        self.config = config or MaisiConfig()
        self.channels = self.config.latent_channels
        self.stride = self.config.stride
        self.network = maisi_network(self.config)

    @classmethod
    def from_file(cls, path: Path, config: MaisiConfig | None = None) -> "MaisiTokenizer":
        """Return the tokenizer with the weights of a .safetensors or .pt file, in evaluation mode.

        Args:
            path: weights as NVIDIA publishes them, or fine-tuned by MONAI's MAISI scripts.
            config: sizes of the network; by default those of the published weights.

        Raises:
            InputError: the file is missing or damaged, holds another network, or MONAI is not installed.

        Examples:
            >>> tokenizer = MaisiTokenizer.from_file(Path("autoencoder_v1.pt"))
            >>> mean, log_variance = tokenizer.encode(torch.rand(1, 1, 64, 64, 64))
            >>> mean.shape
            torch.Size([1, 4, 16, 16, 16])
        """
        tokenizer = cls(config)
        weights = read_tensors(path, "unet_state_dict")  # fine-tuned weights are published under this name
        try:
            tokenizer.network.load_state_dict(weights)
        except RuntimeError as error:
            difference = str(error).split("\n")[1].strip()
            raise InputError(
                f"{path.name}: these are not the weights of MAISI's autoencoder. {difference}"
            ) from error
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise InputError(f"{path.name}: some weights are not finite. Download the file again.")
        return tokenizer.eval()

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B C x y z"], Float[Tensor, "B C x y z"]]:
        """Return mean and log-variance of the latent of a volume in [0, 1].

        Raises:
            ValueError: a side of the volume is not a multiple of the stride.
        """
        if any(side % stride for side, stride in zip(volume.shape[2:], self.stride, strict=True)):
            raise ValueError(
                f"The maisi tokenizer halves a volume {len(self.config.num_channels) - 1} times; a volume of "
                f"{tuple(volume.shape[2:])} has a side that is no multiple of {self.stride[0]}. Pad it "
                "first, or use encode_tiled, which pads."
            )
        mean, deviation = self.network.encode(volume)
        return mean, 2 * deviation.log()

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volume of a latent, in normalised intensity. Values can lie slightly outside [0, 1]."""
        return self.network.decode(latent)

"""`maisi`: MONAI's AutoencoderKlMaisi with weights that the user brings (M-11).

The network is MONAI's; this file runs it in one piece. The published configuration cuts every convolution
into slabs along y to fit a GPU, which is right only where y is a multiple of 32 and at least 96: elsewhere it
fails, or returns a latent that is too small. The weights do not know of the cut, and unsplit they serve every
multiple of 4.

GroupNorm makes each voxel depend on the whole tile, so tiles do not join as exactly as `wavelet`'s do. Where
weights come from and under which licence is `models/catalogue.py`'s business; none are shipped.
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
    """Sizes of the network; the defaults are those of the published weights (M-11)."""

    num_channels: tuple[int, ...] = (64, 128, 256)
    num_res_blocks: tuple[int, ...] = (2, 2, 2)
    latent_channels: int = 4
    norm_num_groups: int = 32

    def __post_init__(self) -> None:
        if len(self.num_channels) != len(self.num_res_blocks):
            raise ValueError(
                "num_channels and num_res_blocks describe the same levels and need equal lengths."
            )
        if any(channels % self.norm_num_groups for channels in self.num_channels):
            raise ValueError(
                f"{self.norm_num_groups} norm groups do not divide {self.num_channels} channels."
            )

    @property
    def stride(self) -> int:
        """Voxels per latent voxel."""
        return 2 ** (len(self.num_channels) - 1)


def maisi_network(
    config: MaisiConfig, num_splits: int = 1, norm_float16: bool = False, out_channels: int = 1
) -> "AutoencoderKlMaisi":
    """MONAI's network at these sizes. The weights fit, and mean the same, at any number of splits."""
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
    """MAISI's autoencoder behind the tokenizer protocol. It expects CT in `ct-wide` units (M-03)."""

    name = "maisi"
    halo = 9  # latent voxels that its convolutions reach, in either direction
    bytes_per_latent_voxel = 140_000  # decoding, measured by benchmarks/tokenizers.py

    def __init__(self, config: MaisiConfig | None = None) -> None:
        super().__init__()
        self.config = config or MaisiConfig()
        self.channels = self.config.latent_channels
        self.stride = self.config.stride
        self.network = maisi_network(self.config)

    @classmethod
    def from_file(cls, path: Path, config: MaisiConfig | None = None) -> "MaisiTokenizer":
        """The tokenizer with the weights of a .safetensors or .pt file, ready to use.

        Raises:
            InputError: the file is no such file, or holds another network.
        """
        tokenizer = cls(config)
        weights = read_tensors(path, "unet_state_dict")  # under this name fine-tuned ones are published
        try:
            tokenizer.network.load_state_dict(weights)
        except RuntimeError as error:
            difference = str(error).split("\n")[1].strip()
            raise InputError(
                f"{path.name}: these are not the weights of MAISI's autoencoder. {difference}"
            ) from error
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise InputError(f"{path.name}: some weights are not finite. Fetch the file again.")
        return tokenizer.eval()

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B C x y z"], Float[Tensor, "B C x y z"]]:
        """Mean and log-variance of the latent of a volume in [0, 1].

        Raises:
            ValueError: a side of the volume is not a multiple of the stride.
        """
        if any(side % self.stride for side in volume.shape[2:]):
            raise ValueError(
                f"The maisi tokenizer halves a volume {len(self.config.num_channels) - 1} times; one of "
                f"{tuple(volume.shape[2:])} has sides that are no multiple of {self.stride}. Pad it first "
                "(tiling.py does)."
            )
        mean, deviation = self.network.encode(volume)
        return mean, 2 * deviation.log()

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """The volume a latent stands for, in profile units; it may leave [0, 1] by a little."""
        return self.network.decode(latent)

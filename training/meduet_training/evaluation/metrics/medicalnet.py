"""Volume features of MedicalNet's ResNet-50, from weights that the user supplies (Chen et al. 2019).

The package never downloads or ships the weights. The network is MONAI's, whose tensors have the names of
MedicalNet. MedicalNet was built for segmentation and uses dilation where MONAI uses stride; `_resnet50`
restores the dilation, so that the weights run in the network they were trained in.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.errors import InputError
from napari_meduet.tokenizers.weight_files import read_tensors

NAME = "MedicalNet ResNet-50"
HEAD = ("fc.", "conv_seg.")  # layers of the training tasks, which are dropped
PARALLEL = "module."  # prefix of the published names


class MedicalNet(nn.Module):
    """ResNet-50 that returns 2048 features of a volume: the last layer averaged over space.

    Attributes:
        sha256: digest of the weight file.

    Raises:
        InputError: the file does not hold these weights, or MONAI is missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        weights = {
            name.removeprefix(PARALLEL): tensor.float()
            for name, tensor in read_tensors(path, "state_dict").items()
            if not name.removeprefix(PARALLEL).startswith(HEAD)
        }
        network = _resnet50()
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(
                f"{path.name}: this file does not hold the weights of {NAME}. Give resnet_50.pth or "
                "resnet_50_23dataset.pth."
            ) from error
        self.network = network.eval().requires_grad_(False)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    @torch.no_grad()
    def forward(self, volume: Float[Tensor, "X Y Z"]) -> Float[Tensor, " F"]:
        standardised = (volume - volume.mean()) / volume.std().clamp(min=1e-6)  # as in its training
        device = next(self.network.parameters()).device
        return self.network(standardised.to(device)[None, None])[0].float().cpu()


def _resnet50() -> nn.Module:
    try:
        from monai.networks.nets.resnet import resnet50
    except ImportError as error:
        raise InputError(
            f"{NAME} needs MONAI. Install it with: pip install 'napari-meduet[maisi]'."
        ) from error
    network: Any = resnet50(
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=False,
    )
    for layer, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for block in layer:
            block.conv2.stride = (1, 1, 1)
            block.conv2.dilation = block.conv2.padding = (dilation,) * 3
        layer[0].downsample[0].stride = (1, 1, 1)
    return network

"""Initial weights of the wavelet tokenizer: the best linear code of some volumes (ours, docs/departures.md).

The linear layers are set to principal components, and the residual networks start with an output of zero. So
the training starts with the error of a linear autoencoder. `tasks/pretraining/linear_start.py` does the same
for MeDUET.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.tokenizers.wavelet import WaveletTokenizer

LOG_VARIANCE = -5.0  # of the initial latents: a standard deviation of 0.08


@torch.no_grad()
def start_tokenizer_linearly(tokenizer: WaveletTokenizer, volume: Float[Tensor, "B 1 X Y Z"]) -> None:
    """Set a tokenizer to the whitened principal components of the wavelet coefficients of these volumes."""
    coefficients = tokenizer.coefficients_of(volume).flatten(0, 3) * tokenizer.scale  # (N, 64), unscaled
    mean = coefficients.mean(dim=0)
    variances, components = torch.linalg.eigh(torch.cov(coefficients.T))
    chosen = slice(-tokenizer.channels, None)
    std = variances[chosen].sqrt()
    to_latent = components[:, chosen].T / std[:, None]  # (C, 64)
    tokenizer.linear_code.weight.copy_(to_latent * tokenizer.scale)
    tokenizer.linear_code.bias.copy_(-to_latent @ mean)
    tokenizer.linear_decode.weight.copy_(components[:, chosen] * std / tokenizer.scale[:, None])
    tokenizer.linear_decode.bias.copy_(mean / tokenizer.scale)
    for layer in (tokenizer.squeeze, tokenizer.coefficients):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    tokenizer.squeeze.bias[tokenizer.channels :] = LOG_VARIANCE

"""Small scans, windows and networks for the tests of the training package."""

import numpy as np
import torch
from tiny import phantom

from meduet_training.data.caches.latent_windows import LatentWindows
from meduet_training.data.caches.prepared import WorkingScan
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.tokenizers.wavelet import WaveletConfig

WAVELET = WaveletConfig(width=8, encoder_blocks=1, decoder_blocks=1)
CPU = torch.device("cpu")
NARROW = {
    "grid": (2, 2, 2), "width": 24, "depth": 1, "heads": 2, "content_width": 24, "style_width": 12,
    "decoder_width": 24, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip


def network(**changes) -> MeDUETConfig:
    """A network of one narrow block, on a grid of 2 x 2 x 2 tokens."""
    return MeDUETConfig.tiny(**NARROW | changes)


def working_scan(modality: str, seed: int = 0, domain: str = "site", aligned: str = "") -> WorkingScan:
    """Return the phantom as a prepared scan. Scans with the same `aligned` show the same anatomy."""
    values = phantom(modality, seed)
    body = phantom(modality, 0) > (-300 if modality == "CT" else 100)
    if modality == "MR":
        values = (values / values.max()).astype(np.float16)
    return WorkingScan(values, body, domain, "patient", modality, aligned or f"{modality}{seed}", "0")


def random_windows(
    num_anatomies: int = 6, *, side: int = 8, channels: int = 4, tokenizer_sha256: str = "0"
) -> LatentWindows:
    """Return windows of two scans with three appearances of each anatomy: two with a domain, one without.

    Latents are smooth and differ by appearance, so that a network can learn them.
    """
    generator = torch.Generator().manual_seed(0)
    anatomies = torch.randn(num_anatomies, channels, 2, 2, 2, generator=generator)
    rows = [(anatomy, choice) for anatomy in range(num_anatomies) for choice in range(3)]
    shape = (side,) * 3
    mean = torch.stack(
        [
            torch.nn.functional.interpolate(anatomies[[anatomy]], size=shape, mode="trilinear")[0]
            * (1.0 + 0.5 * choice)
            for anatomy, choice in rows
        ]
    )
    scans = [anatomy % 2 for anatomy, _ in rows]
    return LatentWindows(
        mean=mean.half(),
        log_variance=torch.full_like(mean, -5.0).half(),
        coverage=torch.ones(len(rows), (side // 4) ** 3),
        anatomy=torch.tensor([anatomy for anatomy, _ in rows]),
        appearance=torch.tensor([100 * scan + choice for scan, (_, choice) in zip(scans, rows, strict=True)]),
        domain=torch.tensor([(scan, 2, -1)[choice] for scan, (_, choice) in zip(scans, rows, strict=True)]),
        domains=("site a", "site b", "simulated"),
        tokenizer_sha256=tokenizer_sha256,
    )

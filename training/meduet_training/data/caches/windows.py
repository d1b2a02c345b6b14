"""From a cohort to its latent windows, made once and kept under a name that tells what they were made of."""

import hashlib
from pathlib import Path

import torch

from meduet_training.data.caches.latent_windows import LatentWindows, load_windows, make_windows, save_windows
from meduet_training.data.caches.prepared import load_prepared
from meduet_training.data.tokenizer_files import tokenizer_sha256
from napari_meduet.tokenizers.wavelet import WaveletTokenizer


def cached_windows(
    prepared: list[Path],
    tokenizer: WaveletTokenizer,
    cache: Path,
    *,
    groups: int,
    seed: int,
    device: torch.device,
) -> LatentWindows:
    """The windows of prepared scans by this tokenizer, from the cache if they are there."""
    words = [tokenizer_sha256(tokenizer), groups, seed, *(path.name for path in prepared)]
    key = hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()[:16]
    path = cache / f"windows-{key}.safetensors"
    if not path.exists():
        scans = [load_prepared(file) for file in prepared]
        save_windows(make_windows(scans, tokenizer.to(device), groups=groups, seed=seed, device=device), path)
    return load_windows(path)

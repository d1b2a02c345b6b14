"""Make the latent windows of a cohort once, and keep them in a cache directory.

The name of the file is a digest of tokenizer, intensity profile, seed and scans.
"""

import hashlib
from pathlib import Path
from typing import cast

import torch
from torch import nn

from meduet_training.data.caches.latent_spec import LatentSpec
from meduet_training.data.caches.latent_windows import LatentWindows, load_windows, make_windows, save_windows
from meduet_training.data.caches.prepared import load_prepared
from napari_meduet.tokenizers.tokenizer import Tokenizer


def cached_windows(
    prepared: list[Path],
    tokenizer: Tokenizer,
    spec: LatentSpec,
    cache_dir: Path,
    *,
    groups: int,
    seed: int,
    device: torch.device,
) -> LatentWindows:
    """Return the windows of prepared scans, encoded by this tokenizer unless the cache holds them.

    Args:
        prepared: files of `prepare_cohort`.
        spec: the specification of the tokenizer's latents; its CT profile is used.
        groups: anatomies for each scan (`make_windows`).
    """
    ct_profile = spec.ct_profile
    parts = [
        spec.tokenizer_sha256, ct_profile.name, groups, seed, *(path.name for path in prepared)
    ]  # fmt: skip
    key = hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]
    path = cache_dir / f"windows-{key}.safetensors"
    if not path.exists():
        scans = [load_prepared(file) for file in prepared]
        cast(nn.Module, tokenizer).to(device)
        windows = make_windows(
            scans, tokenizer, groups=groups, seed=seed, device=device, ct_profile=ct_profile
        )
        save_windows(windows, path)
    return load_windows(path)

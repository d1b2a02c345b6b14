"""What a pretraining run is given: the windows it learns from, and the tokenizer that is kept beside it."""

from pathlib import Path

import torch

from meduet_training.data.cohort import read_cohort, trainable
from meduet_training.data.latent_windows import LatentWindows, load_windows
from meduet_training.data.prepared import prepare_cohort
from meduet_training.data.window_cache import cached_windows
from meduet_training.machinery.folders import make_folder
from meduet_training.recipes.pretraining import GROUPS
from meduet_training.tokenizer_files import load_tokenizer, save_tokenizer, tokenizer_sha256
from napari_meduet.errors import InputError
from napari_meduet.models.card import TOKENIZER_FILE
from napari_meduet.tokenizers.wavelet import WaveletTokenizer


def open_windows(
    windows: Path | None,
    data: Path | None,
    cache: Path,
    tokenizer: WaveletTokenizer,
    seed: int,
    device: torch.device,
) -> LatentWindows:
    """The windows in a file, or those of a cohort's scans, by this very tokenizer.

    Raises:
        InputError: neither or both were given, or another tokenizer wrote the windows.
    """
    if windows is not None and data is None:
        found = load_windows(windows)
    elif data is not None and windows is None:
        prepared = prepare_cohort(trainable(read_cohort(data)), cache / "prepared")
        found = cached_windows(prepared, tokenizer, cache, groups=GROUPS, seed=seed, device=device)
    else:
        raise InputError("Give either --windows, a file made before, or --data, scans to make them from.")
    if found.mean.shape[1] != tokenizer.channels:
        raise InputError(
            f"These windows have {found.mean.shape[1]} latent channels, but the tokenizer writes "
            f"{tokenizer.channels}; give the tokenizer that wrote them, or make them again."
        )
    if found.tokenizer_sha256 != tokenizer_sha256(tokenizer):
        raise InputError(
            "These windows were written by another tokenizer; give that one, or make them again with --data."
        )
    return found


def keep_tokenizer(tokenizer: WaveletTokenizer, folder: Path) -> None:
    """Put the tokenizer beside the run, so that the folder alone becomes a model.

    Raises:
        InputError: the folder holds another one, of another run.
    """
    make_folder(folder)
    if (folder / TOKENIZER_FILE).exists():
        if tokenizer_sha256(load_tokenizer(folder)) != tokenizer_sha256(tokenizer):
            raise InputError(
                f"{folder.name}: holds the tokenizer of another run; give another output folder."
            )
    else:
        save_tokenizer(tokenizer, folder)

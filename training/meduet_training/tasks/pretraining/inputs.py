"""What a pretraining run is given: what it learns from, and the tokenizer that is kept beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric

from meduet_training.data.caches.latent_spec import open_tokenizer
from meduet_training.data.caches.latent_windows import LatentWindows, load_windows
from meduet_training.data.caches.prepared import prepare_cohort
from meduet_training.data.caches.windows import cached_windows
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.sources.protocol import BatchSource
from meduet_training.data.sources.voxels import VoxelSource
from meduet_training.data.sources.windows import WindowSource
from meduet_training.data.tokenizer_files import load_tokenizer, save_tokenizer, tokenizer_sha256
from meduet_training.engine.trainer import TrainingConfig
from meduet_training.runtime.fabric import decided_by_first
from meduet_training.runtime.folders import make_folder
from meduet_training.runtime.messages import say_on_stderr
from meduet_training.tasks.config import DataConfig
from meduet_training.tasks.pretraining.presets import GROUPS
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.errors import InputError
from napari_meduet.models.card import TOKENIZER_FILE
from napari_meduet.tokenizers.wavelet import WaveletTokenizer


def open_source(
    fabric: Fabric, data: DataConfig, tokenizer: WaveletTokenizer | None, training: TrainingConfig
) -> BatchSource[Any]:
    """What the configuration names, latents being by this very tokenizer. On all processes together.

    Args:
        tokenizer: None for a pretext on voxels.

    Raises:
        InputError: there are none, they are damaged, or another tokenizer wrote them.
    """
    if tokenizer is None:
        paths = decided_by_first(fabric, lambda: _prepared(data))
        return VoxelSource(paths, training.seed, training.network.latent_shape[1:])
    if data.cache is not None:
        return _open_cache(data.cache, cast(Path, data.tokenizer), training)
    if data.windows is not None:
        windows = load_windows(data.windows)
    else:
        windows = _windows_of_scans(fabric, data, tokenizer, training.seed)
    channels = windows.mean.shape[1]
    if channels != tokenizer.channels:
        raise InputError(
            f"These windows have {channels} latent channels, but the tokenizer writes {tokenizer.channels}; "
            "give the tokenizer that wrote them, or make them again."
        )
    if windows.tokenizer_sha256 != tokenizer_sha256(tokenizer):
        raise InputError(
            "These windows were written by another tokenizer; give that one, or make them again with --data."
        )
    return WindowSource(windows, training.seed)


def check_domains(
    source: BatchSource[Any], training: TrainingConfig, say: Callable[[str], None] = say_on_stderr
) -> None:
    """Whether content and style can be told apart in these data.

    Args:
        say: hears which domains have one scan, whose style is that of one patient as well.

    Raises:
        InputError: there are too few domains for what is asked.
    """
    objective = training.objective
    if not isinstance(training.network, MeDUETConfig):
        return  # it has no style
    needs_two = isinstance(objective, ObjectiveConfig) and (
        objective.classifies_domains or objective.pairing == "cross_domain"
    )
    if needs_two and len(source.domains) < 2:
        raise InputError(
            f"All scans are of one domain ({', '.join(source.domains) or 'no label'}), and what scanners do "
            "differently cannot be learnt from one; add another, or train --without domain with "
            "training.objective.pairing=random."
        )
    lonely = [name for name, count in source.num_scans.items() if count == 1]
    if lonely:
        are = "has" if len(lonely) == 1 else "have"
        say(
            f"{len(lonely)} of {len(source.domains)} domains {are} one scan each ({', '.join(lonely)}): "
            "their style cannot be told from their patient's anatomy."
        )


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


def _open_cache(folder: Path, tokenizer: Path, training: TrainingConfig) -> CacheSource:
    source = CacheSource(folder, training.seed, side=training.network.latent_shape[1])
    _, expected = open_tokenizer(tokenizer)
    if difference := expected.difference(source.spec):
        raise InputError(
            f"{folder.name}: this cache was made {difference}; give the tokenizer that made it, or make the "
            "cache again."
        )
    return source


def _windows_of_scans(
    fabric: Fabric, data: DataConfig, tokenizer: WaveletTokenizer, seed: int
) -> LatentWindows:
    """Made by the first process, unless they are there, and read by all."""

    def windows() -> LatentWindows:
        return cached_windows(
            _prepared(data), tokenizer, data.made, groups=GROUPS, seed=seed, device=fabric.device
        )

    made: list[LatentWindows] = []
    decided_by_first(fabric, lambda: made.append(windows()))
    return made[0] if made else windows()


def _prepared(data: DataConfig) -> list[Path]:
    return prepare_cohort(trainable(read_cohort(cast(Path, data.scans))), data.made / "prepared")

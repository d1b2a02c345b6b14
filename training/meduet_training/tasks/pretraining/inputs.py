"""Inputs of a pretraining run: the data source, and the tokenizer that is stored in the run folder.

`run.py` calls these functions before training starts. `tasks/config.py` holds the options.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric

from meduet_training.data.caches.latent_spec import LatentSpec, profile_card
from meduet_training.data.caches.latent_windows import LatentWindows, load_windows
from meduet_training.data.caches.prepared import prepare_cohort
from meduet_training.data.caches.windows import cached_windows
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.sources.protocol import BatchSource
from meduet_training.data.sources.voxels import VoxelSource
from meduet_training.data.sources.windows import WindowSource
from meduet_training.data.tokenizer_files import load_tokenizer, save_tokenizer
from meduet_training.engine.config import TrainingConfig
from meduet_training.runtime.fabric import run_on_rank_zero
from meduet_training.runtime.folders import make_folder
from meduet_training.runtime.messages import print_to_stderr
from meduet_training.tasks.pretraining.config import PretrainingData
from meduet_training.tasks.pretraining.presets import GROUPS
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.errors import InputError
from napari_meduet.models.card import TOKENIZER_FILE, ProfileCard
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import CT_FULL, IntensityProfile, profile_named


def open_source(
    fabric: Fabric,
    data: PretrainingData,
    tokenizer: Tokenizer | None,
    spec: LatentSpec | None,
    training: TrainingConfig,
) -> tuple[BatchSource[Any], LatentSpec | None]:
    """Return the data source of a run and the specification of its latents. All processes call it together.

    The CT profile of the specification is `data.ct_profile`, or else that of the cache or of the windows.

    Args:
        tokenizer, spec: what `load_tokenizer` returned; None for a pretext on voxels.

    Raises:
        InputError: there are no data, they are damaged, or another tokenizer or profile encoded them.
    """
    if tokenizer is None or spec is None:
        paths = run_on_rank_zero(fabric, lambda: _prepared(data))
        ct_profile = profile_named(data.ct_profile) if data.ct_profile else CT_FULL
        return VoxelSource(paths, training.seed, training.network.latent_shape[1:], ct_profile), None
    if data.cache is not None:
        return _open_cache(data.cache, data, spec, training)
    if data.windows is not None:
        windows = load_windows(data.windows)
    else:
        windows = _windows_of_scans(fabric, data, tokenizer, spec, training.seed)
    channels = windows.mean.shape[1]
    if channels != tokenizer.channels:
        raise InputError(
            f"These windows have {channels} latent channels, but the tokenizer writes {tokenizer.channels}. "
            "Give the tokenizer that encoded them, or make the windows again with --data."
        )
    if windows.tokenizer_sha256 != spec.tokenizer_sha256:
        raise InputError(
            "These windows were encoded by another tokenizer. Give that tokenizer, or make the windows again "
            "with --data."
        )
    return WindowSource(windows, training.seed), _with_profile_of(windows.ct_profile, data, spec)


def check_domains(
    source: BatchSource[Any], training: TrainingConfig, say: Callable[[str], None] = print_to_stderr
) -> None:
    """Check that the data have enough domains to separate content from style.

    Args:
        say: called with a warning about domains with a single scan.

    Raises:
        InputError: the objective needs two domains, and the data have one.
    """
    objective = training.objective
    if not isinstance(training.network, MeDUETConfig):
        return  # other networks have no style
    needs_two = isinstance(objective, ObjectiveConfig) and (
        objective.classifies_domains or objective.pairing == "cross_domain"
    )
    if needs_two and len(source.domains) < 2:
        raise InputError(
            f"All scans are of one domain ({', '.join(source.domains) or 'no label'}). Differences between "
            "scanners need at least two. Add scans of another domain, or train with --without domain and "
            "--set training.objective.pairing=random."
        )
    single = [name for name, count in source.num_scans.items() if count == 1]
    if single:
        are = "has" if len(single) == 1 else "have"
        say(
            f"{len(single)} of {len(source.domains)} domains {are} one scan each ({', '.join(single)}): "
            "the style of such a domain cannot be separated from the anatomy of its patient."
        )


def keep_tokenizer(tokenizer: Tokenizer, spec: LatentSpec, folder: Path) -> None:
    """Store the tokenizer in the run folder, so that `meduet-pretrain export` needs nothing else.

    Raises:
        InputError: the folder holds another tokenizer or intensity profile, so it belongs to another run.
    """
    make_folder(folder)
    if (folder / TOKENIZER_FILE).exists():
        if difference := spec.difference(load_tokenizer(folder)[1]):
            raise InputError(
                f"{folder.name}: holds the tokenizer of another run; its latents were made {difference}. "
                "Give another output folder."
            )
    else:
        save_tokenizer(tokenizer, folder, spec)


def _open_cache(
    folder: Path, data: PretrainingData, spec: LatentSpec, training: TrainingConfig
) -> tuple[CacheSource, LatentSpec]:
    source = CacheSource(folder, training.seed, side=training.network.latent_shape[1])
    if data.ct_profile is None and "CT" in spec.profiles and "CT" in source.spec.profiles:
        spec = spec.with_ct_profile(source.spec.profiles["CT"])
    if difference := spec.difference(source.spec):
        raise InputError(
            f"{folder.name}: this cache was made {difference}. Give the tokenizer and the profile that made "
            "it, or make the cache again."
        )
    return source, spec


def _with_profile_of(made_with: IntensityProfile, data: PretrainingData, spec: LatentSpec) -> LatentSpec:
    """Return the specification with the CT profile of some windows.

    Raises:
        InputError: the configuration gives another profile.
    """
    if data.ct_profile is not None and profile_card(data.ct_profile).knots != made_with.knots:
        raise InputError(
            f"These windows were made with the intensity profile {made_with.name}, not {data.ct_profile}. "
            "Leave --ct-profile out, or make the windows again with --data."
        )
    if "CT" not in spec.profiles:
        return spec
    return spec.with_ct_profile(ProfileCard(name=made_with.name, knots=made_with.knots))


def _windows_of_scans(
    fabric: Fabric, data: PretrainingData, tokenizer: Tokenizer, spec: LatentSpec, seed: int
) -> LatentWindows:
    """Return the windows of the scans. The first process makes missing windows; all processes read them."""

    def windows() -> LatentWindows:
        return cached_windows(
            _prepared(data), tokenizer, spec, data.cache_dir, groups=GROUPS, seed=seed, device=fabric.device
        )

    made: list[LatentWindows] = []
    run_on_rank_zero(fabric, lambda: made.append(windows()))
    return made[0] if made else windows()


def _prepared(data: PretrainingData) -> list[Path]:
    return prepare_cohort(trainable(read_cohort(cast(Path, data.scans))), data.cache_dir / "prepared")

"""From a folder of scans to the embedded model: prepare, tokenizer, windows, pretraining, card.

Every stage leaves its result in a cache folder and is skipped if it is there, so an interrupted run goes on.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.progress import track

from meduet_training.data.cohort import Scan, read_cohort, trainable
from meduet_training.data.latent_windows import LatentWindows, load_windows, make_windows, save_windows
from meduet_training.data.prepared import load_prepared, prepare_cohort
from meduet_training.machinery.progress import training_progress
from meduet_training.pretraining import run_pretraining
from meduet_training.recipes.demo import DemoRecipe
from meduet_training.tokenizer_run import load_tokenizer, run_tokenizer_training
from napari_meduet.core.objective import Objective
from napari_meduet.models.card import ModelCard, ProfileCard, TokenizerCard, TrainingSource
from napari_meduet.models.files import Model, load_model, save_model
from napari_meduet.models.styles import Style
from napari_meduet.pipelines.factors import mean_style, measure_scan
from napari_meduet.pipelines.progress import silent
from napari_meduet.pipelines.provenance import commit
from napari_meduet.tokenizers.wavelet import WaveletTokenizer
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL
from napari_meduet.volumes.preparation import WORKING_SPACING_MM

DESCRIPTION = (
    "A small research model, trained in two hours on a few public scans, most sites with one patient. "
    "It shows what the software does; it is no medical device and must not be used for diagnosis."
)


def make_demo_model(fabric: Fabric, data: Path, cache: Path, folder: Path, recipe: DemoRecipe) -> ModelCard:
    """Train everything and write the model folder; figures are measured afterwards (`evaluation/figures.py`)."""
    scans = trainable(read_cohort(data))
    prepared = [load_prepared(path) for path in prepare_cohort(scans, cache / "prepared")]
    tokenizer_folder = cache / "tokenizer"
    if not (tokenizer_folder / "done").exists():
        run_tokenizer_training(fabric, prepared, recipe.tokenizer, tokenizer_folder)
        (tokenizer_folder / "done").touch()
    tokenizer = load_tokenizer(tokenizer_folder).to(fabric.device)
    windows_file = cache / "windows.safetensors"
    if not windows_file.exists():
        made = make_windows(prepared, tokenizer, groups=recipe.groups, seed=recipe.seed, device=fabric.device)
        save_windows(made, windows_file)
    windows = load_windows(windows_file)
    with training_progress("Pretraining", recipe.pretraining.objective.total_steps) as on_step:
        objective = run_pretraining(
            fabric,
            windows,
            with_domains(recipe, len(windows.domains)).pretraining,
            cache / "pretraining",
            on_step=on_step,
        )
    return write_demo_model(folder, scans, windows, tokenizer, objective, recipe)


def with_domains(recipe: DemoRecipe, num_domains: int) -> DemoRecipe:
    """The recipe with a class for each domain of the cohort."""
    network = replace(recipe.pretraining.network, num_domains=num_domains)
    return replace(recipe, pretraining=replace(recipe.pretraining, network=network))


def write_demo_model(
    folder: Path,
    scans: list[Scan],
    windows: LatentWindows,
    tokenizer: WaveletTokenizer,
    objective: Objective,
    recipe: DemoRecipe,
) -> ModelCard:
    """Card, half-precision weights, and the style of each domain, measured with the finished model."""
    mean, std = windows.statistics()
    licences = {scan.domain: scan.licence for scan in scans}
    modalities = {scan.domain: scan.modality for scan in scans}
    counts = Counter(scan.domain for scan in scans)
    card = ModelCard(
        name="demo",
        description=DESCRIPTION,
        modalities=("CT", "MR"),
        tokenizer=TokenizerCard(
            name=tokenizer.name,
            config=asdict(tokenizer.config),
            latent_mean=tuple(mean.tolist()),
            latent_std=tuple(std.tolist()),
        ),
        meduet=asdict(objective.student.config),
        profiles={"CT": ProfileCard(name=CT_FULL.name, knots=CT_FULL.knots), "MR": ProfileCard(name="mr")},
        working_spacing_mm=WORKING_SPACING_MM,
        domains=windows.domains,
        training_data=tuple(
            TrainingSource(
                domain=domain, modality=modalities[domain], num_scans=count, licence=licences[domain]
            )
            for domain, count in sorted(counts.items())
        ),
        training={"tokenizer": asdict(recipe.tokenizer), "pretraining": asdict(recipe.pretraining)},
        seeds={
            "tokenizer": recipe.tokenizer.seed,
            "windows": recipe.seed,
            "pretraining": recipe.pretraining.seed,
        },
        commit=commit(),
    )
    weights = [_halved(network.state_dict()) for network in (tokenizer, objective.student)]
    save_model(folder, card, *weights, overwrite=True)
    styles = known_styles(load_model(folder, "cpu"), scans)
    return save_model(folder, card, *weights, styles, overwrite=True)


@torch.inference_mode()
def known_styles(model: Model, scans: list[Scan]) -> dict[str, Style]:
    """The prototype of each domain (Eq. 25)."""
    styles = defaultdict(list)
    for scan in track(scans, description="Measuring styles"):
        volume = read_volume(scan.path, modality=scan.modality)
        styles[scan.domain].append(measure_scan(model, volume, silent).style)
    return {domain: mean_style(found) for domain, found in styles.items()}


def _halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half precision: measured to cost nothing (docs/benchmarks.md)."""
    return {name: tensor.detach().cpu().half() for name, tensor in weights.items()}

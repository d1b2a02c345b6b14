"""Train a generator on the latents and factors of a finished MeDUET model. `task.py` reads the configuration.

`../train.py` trains, like every task. This file opens the data, chooses the initial weights, and chooses the
scans of the validation set.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from torch import nn

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.sources.factors import FactorSource
from meduet_training.engine.config import TrainingConfig
from meduet_training.runtime.fabric import launch_fabric, refuse_fsdp
from meduet_training.runtime.messages import report_on_rank_zero
from meduet_training.tasks.choices import GeneratorStart
from meduet_training.tasks.factors import cached_factors
from meduet_training.tasks.generator.config import GeneratorRun
from meduet_training.tasks.generator.validation import GeneratorValidation
from meduet_training.tasks.train import check_batch, train_task
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.core.synthesis.objective import GenerationObjective
from napari_meduet.core.warm_start import warm_start
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model

CROPS_FOR_WHITENING = 1024
VALIDATION_SCANS = 2  # of each domain; enough for a panel and a loss
SIZES_OF_MODEL = ("latent_channels", "patch_size", "content_width", "style_width")


def run_generator(run: GeneratorRun, folder: Path) -> None:
    """Train as configured, or resume the run in the folder. All processes of a job call this together.

    Raises:
        InputError: the run is impossible as configured, or the folder belongs to another run.
        Stopped: a signal stopped the run; the same configuration resumes it.
        TrainingFailed: the training cannot continue.
    """
    with report_on_rank_zero():
        refuse_fsdp(run.hardware, "A generator, whose blocks are modulated from outside,")
        model = load_model(run.data.model, "cpu")
        training = adapt_to_model(run.training, model.meduet.config, model.sha256, run.start)
        check_start(training, model)
        cohort = read_cohort(run.data.scans)
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        source, held_out = (
            _source(cached_factors(fabric, run.data.model, scans, run.data.cache_dir, name), training)
            for scans, name in ((trainable(cohort), "training"), (_validation_scans(cohort), "held-out"))
        )
        if source is None:
            grid = " x ".join(str(tokens) for tokens in cast(GeneratorConfig, training.network).grid)
            raise InputError(
                f"No scan is as large as a crop of the generator, {grid} tokens; give larger scans, or a "
                "smaller training.network.grid."
            )
        check_batch(fabric, run, training, source)
    cast(nn.Module, model.tokenizer).to(fabric.device)  # decodes the samples of the validation
    train_task(
        fabric,
        run,
        training,
        source,
        folder,
        tokenizer=model.tokenizer,
        init_weights=partial(init_weights, training=training, model=model, source=source),
        validator=GeneratorValidation(held_out, model) if held_out else None,
    )


def adapt_to_model(
    training: TrainingConfig, model: MeDUETConfig, sha256: str, start: GeneratorStart
) -> TrainingConfig:
    """Return the training of a generator that reads the factors of this model.

    Args:
        model, sha256: configuration of the model's network, and hash of the model.
    """
    sizes = {name: getattr(model, name) for name in SIZES_OF_MODEL}
    network = replace(cast(GeneratorConfig, training.network), **sizes)
    return replace(training, network=network, model_sha256=sha256, start=start)


def check_start(training: TrainingConfig, model: Model) -> None:
    """Refuse a warm start if the encoder's weights do not fit the generator.

    Raises:
        InputError: with the sizes that differ.
    """
    if training.start != "warm":
        return
    network = cast(GeneratorConfig, training.network)
    try:
        warm_start(Generator(replace(network, grid=(1, 1, 1), positions_of=None)), model.meduet.encoder)
    except ValueError as error:
        raise InputError(f"{error} Or begin with --start scratch.") from error


def init_weights(
    objective: nn.Module, *, training: TrainingConfig, model: Model, source: FactorSource
) -> None:
    """Set a new generator and its average: the encoder's weights for a warm start, and whitened factors."""
    assert isinstance(objective, GenerationObjective)
    if training.start == "warm":
        warm_start(objective.student, model.meduet.encoder)
        objective.teacher.load_state_dict(objective.student.state_dict())
    if cast(GeneratorConfig, training.network).whitens_factors:
        factors = source.factors(source.choose(-1, CROPS_FOR_WHITENING))
        objective.fit_factors(factors["content"], factors["style"])


def _validation_scans(scans: list[Scan]) -> list[Scan]:
    """Return the first test scans of each domain."""
    by_domain: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.split == "test" and scan.may_train:
            by_domain.setdefault(scan.domain, []).append(scan)
    return [scan for of_domain in by_domain.values() for scan in of_domain[:VALIDATION_SCANS]]


def _source(entries: list[FactorEntry], training: TrainingConfig) -> FactorSource | None:
    """Return a source of the scans that are large enough for a crop; None if there are none."""
    grid = cast(GeneratorConfig, training.network).grid
    large = [entry for entry in entries if all(a >= b for a, b in zip(entry.grid, grid, strict=True))]
    return FactorSource(large, grid, training.seed) if large else None

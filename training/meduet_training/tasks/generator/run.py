"""A configuration becomes the training of a generator: all is checked, factors are made, then it is trained.

The engine is the pretraining's; what differs is what is learnt from (latents with the factors of a finished
MeDUET), how the network begins, and what is looked at.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from pydantic import BaseModel
from rich.console import Console
from rich.progress import Progress
from torch import nn

from meduet_training.data.caches.factors import FactorEntry, cache_factors, open_factors
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.sources.factors import FactorSource
from meduet_training.data.sources.protocol import BatchSource
from meduet_training.data.sources.step_batches import Shard
from meduet_training.engine.config import TrainingConfig
from meduet_training.engine.run_lock import run_lock
from meduet_training.engine.trainer import Trainer, checked_batches
from meduet_training.engine.validator import Validator
from meduet_training.reporting.run_logger import log_run
from meduet_training.runtime.fabric import launch_fabric, refuse_fsdp, run_on_rank_zero
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.config import write_run_config
from meduet_training.tasks.generator.config import GeneratorRun, for_model
from meduet_training.tasks.generator.validation import GeneratorValidation
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.core.synthesis.objective import GenerationObjective
from napari_meduet.core.warm_start import warm_start
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.tokenizers.tokenizer import Tokenizer

FACTORS_TO_FIT = 1024  # crops
HELD_OUT_OF_A_DOMAIN = 2  # scans: what a panel and a loss need


def run_generator(run: GeneratorRun, folder: Path) -> None:
    """Train as the configuration says, or go on with the run in the folder. On all processes of the job.

    Raises:
        InputError: the configuration cannot be run here, or the folder is another run's. Nothing was trained.
        Stopped: a signal came; the same configuration goes on from there.
        Failed: the training cannot go on.
    """
    with report_on_rank_zero():
        refuse_fsdp(run.hardware, "A generator, whose blocks are modulated from outside,")
        model = load_model(run.data.model, "cpu")
        training = for_model(run.training, model.meduet.config, model.sha256, run.start)
        check_beginning(training, model)
        cohort = read_cohort(run.data.scans)
        learned, held_out = trainable(cohort), _held_out(cohort)
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        source, unseen = (
            _source(factors_of(fabric, run.data.model, scans, run.data.cache_dir, what), training)
            for scans, what in ((learned, "training"), (held_out, "held-out"))
        )
        if source is None:
            raise InputError(
                f"No scan is as large as a crop of the generator, {_in_words(training)}; give larger scans, "
                "or a smaller training.network.grid."
            )
        share = Shard(num_ranks=fabric.world_size, accumulate=run.hardware.accumulate)
        checked_batches(training, source, share)
    train_watched(
        fabric,
        run,
        training,
        source,
        model,
        folder,
        on_new=lambda objective: begin(cast(GenerationObjective, objective), training, model, source),
        validator=GeneratorValidation(unseen, model) if unseen else None,
    )


def train_watched(
    fabric: Fabric,
    run: BaseModel,
    training: TrainingConfig,
    source: BatchSource[Any],
    model: Model,
    folder: Path,
    *,
    on_new: Callable[[nn.Module], None],
    build: Callable[[], nn.Module] | None = None,
    validator: Validator | None = None,
) -> None:
    """Train what reads a model's latents or factors, or go on; the folder is held, the training looked at.

    Args:
        run: a configuration with `hardware` and `upkeep`; the folder keeps it, with `training` in it.
        on_new: sets a network that begins.
        build: makes what is trained, where the objective's configuration does not know how.
    """
    whole = run.model_copy(update={"training": training})
    settings = whole.model_dump(mode="json", exclude_none=True, exclude={"data"})  # it has paths
    hardware, upkeep = (cast(Any, getattr(run, name)) for name in ("hardware", "upkeep"))
    with run_lock(fabric, folder, hardware.timeout_s) as guard:
        tokenizer = cast(Tokenizer, cast(nn.Module, model.tokenizer).to(fabric.device))
        with log_run(fabric, folder, training, source, tokenizer, settings, validator) as watch:
            Trainer(
                fabric,
                training,
                source,
                folder,
                hardware=hardware,
                options=upkeep,
                callback=watch,
                build_objective=build,
                init_weights=on_new,
                on_start=lambda: write_run_config(whole, folder),
                should_stop=guard.should_stop,
                report_stage=guard.watchdog.report_stage,
            ).fit()


def check_beginning(training: TrainingConfig, model: Model) -> None:
    """Refuse a warm start whose weights do not fit.

    Raises:
        InputError: with what differs.
    """
    if training.start != "warm":
        return
    network = cast(GeneratorConfig, training.network)
    try:
        warm_start(Generator(replace(network, grid=(1, 1, 1), positions_of=None)), model.meduet.encoder)
    except ValueError as error:
        raise InputError(f"{error} Or begin with --start scratch.") from error


def begin(
    objective: GenerationObjective, training: TrainingConfig, model: Model, source: FactorSource
) -> None:
    """Set a new generator and its average: the encoder's weights where it starts warm, whitened factors."""
    if training.start == "warm":
        warm_start(objective.student, model.meduet.encoder)
        objective.teacher.load_state_dict(objective.student.state_dict())
    if cast(GeneratorConfig, training.network).whitens_factors:
        factors = source.factors(source.choose(-1, FACTORS_TO_FIT))
        objective.fit_factors(factors["content"], factors["style"])


def _held_out(scans: list[Scan]) -> list[Scan]:
    """The first test scans of each domain."""
    by_domain: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.split == "test" and scan.may_train:
            by_domain.setdefault(scan.domain, []).append(scan)
    return [scan for several in by_domain.values() for scan in several[:HELD_OUT_OF_A_DOMAIN]]


def factors_of(
    fabric: Fabric, model: Path, scans: list[Scan], cache_dir: Path, what: str
) -> list[FactorEntry]:
    """Made by the first process, on its device, unless they are there; opened by all."""
    on_cpu = load_model(model, "cpu")
    if not scans:
        return []
    entries: list[FactorEntry] = []

    def make() -> None:
        entries.extend(open_factors(on_cpu, scans, cache_dir))
        if len(entries) == len(scans):
            return
        on_device = load_model(model, fabric.device.type)
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(f"Factors of {what} scans", total=len(scans))
            entries[:] = cache_factors(
                on_device,
                scans,
                cache_dir,
                lambda number, of: bar.update(task, completed=number),
                print_to_stderr,
            )
            bar.update(task, completed=len(scans))

    run_on_rank_zero(fabric, make)
    return entries if fabric.is_global_zero else open_factors(on_cpu, scans, cache_dir)


def _source(entries: list[FactorEntry], training: TrainingConfig) -> FactorSource | None:
    """Of the scans that are large enough for a crop; None where none is."""
    grid = cast(GeneratorConfig, training.network).grid
    large = [entry for entry in entries if all(a >= b for a, b in zip(entry.grid, grid, strict=True))]
    return FactorSource(large, grid, training.seed) if large else None


def _in_words(training: TrainingConfig) -> str:
    network = cast(GeneratorConfig, training.network)
    return " x ".join(str(tokens) for tokens in network.grid) + " tokens"

"""Train any task in its folder: lock the folder, log the run, and run the trainer. All processes of a job."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from meduet_training.data.sources.protocol import BatchSource
from meduet_training.data.sources.step_batches import Shard
from meduet_training.engine.config import TrainingConfig
from meduet_training.engine.run_lock import run_lock
from meduet_training.engine.trainer import Trainer, checked_batches
from meduet_training.engine.validator import Validator
from meduet_training.evaluation.run_results import RESULTS_TABLE
from meduet_training.reporting.run_logger import log_run
from meduet_training.tasks.config import RunConfig, write_run_config
from napari_meduet.tokenizers.tokenizer import Tokenizer


def train_task(
    fabric: Fabric,
    run: RunConfig,
    training: TrainingConfig,
    source: BatchSource[Any],
    folder: Path,
    *,
    tokenizer: Tokenizer | None,
    init_weights: Callable[[nn.Module], None],
    build_objective: Callable[[], nn.Module] | None = None,
    validator: Validator | None = None,
    on_lock: Callable[[], None] = lambda: None,
) -> None:
    """Train, or resume the run in the folder; print the results on the test split if the validator has some.

    Args:
        run: configuration of the run. The folder stores it, with `training` in it.
        training: the training of `run`, adapted to the data and to the model.
        tokenizer: wrote the latents; for the card, and for the panels of a pretraining. None for voxels.
        init_weights, build_objective: see `Trainer`.
        validator: what is validated. None: the validation crops of the source, if it has some.
        on_lock: runs on every process as soon as the folder is locked.

    Raises:
        InputError: the folder belongs to another run, or cannot be written.
        Stopped: a signal stopped the run; the same configuration resumes it.
        TrainingFailed: the training cannot continue.
    """
    stored = run.model_copy(update={"training": training})
    settings = stored.model_dump(mode="json", exclude_none=True, exclude={"data"})  # `data` has paths
    with run_lock(fabric, folder, run.hardware.timeout_s) as lock:
        on_lock()
        with log_run(fabric, folder, training, source, tokenizer, settings, validator) as callback:
            Trainer(
                fabric,
                training,
                source,
                folder,
                hardware=run.hardware,
                options=run.trainer,
                callback=callback,
                build_objective=build_objective,
                init_weights=init_weights,
                on_start=lambda: write_run_config(stored, folder),
                should_stop=lock.should_stop,
                report_stage=lock.watchdog.report_stage,
            ).fit()
    results = folder / RESULTS_TABLE
    if fabric.is_global_zero and results.is_file():
        print(results.read_text(encoding="utf-8"), end="")


def check_batch(fabric: Fabric, run: RunConfig, training: TrainingConfig, source: BatchSource[Any]) -> None:
    """Refuse latents that do not fit the network, or a batch that cannot be split over the processes.

    Raises:
        InputError: with the numbers that do not fit.
    """
    shard = Shard(num_ranks=fabric.world_size, accumulate=run.hardware.accumulate)
    checked_batches(training, source, shard)

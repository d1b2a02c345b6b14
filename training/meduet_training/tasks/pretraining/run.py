"""A configuration becomes a run: everything is checked, then the folder is held, and the training watched."""

from functools import partial
from pathlib import Path

from meduet_training.data.sources.step_batches import Shard
from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.engine.run_lock import run_lock
from meduet_training.engine.trainer import Trainer, checked_batches
from meduet_training.reporting.run_logger import log_run
from meduet_training.runtime.fabric import launch_fabric, run_on_rank_zero
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.config import ONE_SOURCE, RunConfig, write_run_config
from meduet_training.tasks.pretraining.inputs import check_domains, keep_tokenizer, open_source
from meduet_training.tasks.pretraining.linear_start import init_weights
from meduet_training.tasks.pretraining.presets import with_domains_of
from napari_meduet.errors import InputError


def run_from_config(config: RunConfig, folder: Path) -> None:
    """Train as the configuration says, or go on with the run in the folder. On all processes of the job.

    Raises:
        InputError: the configuration cannot be run here, or the folder is another run's. Nothing was done.
        Stopped: a signal came; the same configuration goes on from there.
        Failed: the training cannot go on.
    """
    with report_on_rank_zero():
        if config.data is None:
            raise InputError(ONE_SOURCE)
        data = config.data
        tokenizer, spec = load_tokenizer(data.tokenizer, data.ct_profile) if data.tokenizer else (None, None)
    fabric = launch_fabric(config.hardware)
    with report_on_rank_zero():
        source, spec = open_source(fabric, data, tokenizer, spec, config.training)
        training = with_domains_of(config.training, source)
        share = Shard(num_ranks=fabric.world_size, accumulate=config.hardware.accumulate)
        checked_batches(training, source, share)
        check_domains(source, training, print_to_stderr if fabric.is_global_zero else lambda sentence: None)
    whole = config.model_copy(update={"training": training})
    with run_lock(fabric, folder, config.hardware.timeout_s) as guard:
        if tokenizer is not None and spec is not None:
            run_on_rank_zero(fabric, lambda: keep_tokenizer(tokenizer, spec, folder))
        settings = whole.model_dump(mode="json", exclude_none=True, exclude={"data"})  # it has paths
        with log_run(fabric, folder, training, source, tokenizer, settings) as watch:
            Trainer(
                fabric,
                training,
                source,
                folder,
                hardware=config.hardware,
                options=config.upkeep,
                callback=watch,
                init_weights=partial(init_weights, config=training, source=source),
                on_start=lambda: write_run_config(whole, folder),
                should_stop=guard.should_stop,
                report_stage=guard.watchdog.report_stage,
            ).fit()

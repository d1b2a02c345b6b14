"""Run a pretraining: open its data, check them, and train. `task.py` reads the configuration."""

from functools import partial
from pathlib import Path

from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.runtime.fabric import launch_fabric, run_on_rank_zero
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.pretraining.config import ONE_SOURCE, PretrainingRun
from meduet_training.tasks.pretraining.inputs import check_domains, keep_tokenizer, open_source
from meduet_training.tasks.pretraining.linear_start import init_weights
from meduet_training.tasks.pretraining.presets import with_domains_of
from meduet_training.tasks.train import check_batch, train_task
from napari_meduet.errors import InputError


def run_pretraining(run: PretrainingRun, folder: Path) -> None:
    """Pretrain as configured, or resume the run in the folder. All processes of a job call this together.

    Raises:
        InputError: the run is impossible as configured, or the folder belongs to another run.
        Stopped: a signal stopped the run; the same configuration resumes it.
        TrainingFailed: the training cannot continue.
    """
    with report_on_rank_zero():
        if run.data is None:
            raise InputError(ONE_SOURCE)
        data = run.data
        tokenizer, spec = load_tokenizer(data.tokenizer, data.ct_profile) if data.tokenizer else (None, None)
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        source, spec = open_source(fabric, data, tokenizer, spec, run.training)
        training = with_domains_of(run.training, source)
        check_batch(fabric, run, training, source)
        check_domains(source, training, print_to_stderr if fabric.is_global_zero else lambda sentence: None)

    def store_tokenizer() -> None:
        if tokenizer is not None and spec is not None:
            run_on_rank_zero(fabric, partial(keep_tokenizer, tokenizer, spec, folder))

    train_task(
        fabric,
        run,
        training,
        source,
        folder,
        tokenizer=tokenizer,
        init_weights=partial(init_weights, config=training, source=source),
        on_lock=store_tokenizer,
    )

"""The callback that records a run: progress bar, log, TensorBoard, panels, run card and report.

    on_step        progress bar; every 20th step a row of log.jsonl and a point of the TensorBoard curves
    on_skip        a row of log.jsonl
    on_validation  panels/*.png and a row of validation.jsonl, both in TensorBoard too
    on_end         factors/, the analysis of the last step

The callback does not change the training and does not use its random numbers. It writes nothing before the
first step, because the folder may belong to another run until the training has checked it.
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.sources.protocol import BatchSource
from meduet_training.data.sources.validation_crops import ValidationCrops, ValidationSource
from meduet_training.engine.callbacks import NullCallback, StepRecord, TrainerCallback
from meduet_training.engine.validator import NoEarlyStopping, Validator
from meduet_training.evaluation.factors.analysis import FactorAnalysis, analyse_factors, write_factors
from meduet_training.evaluation.factors.validation import measure_crops, slices_of_crops
from meduet_training.reporting.card import (
    RunCard,
    RunData,
    Status,
    new_session,
    now,
    start_session,
    without_paths,
    write_run_card,
)
from meduet_training.reporting.factor_pictures import write_factor_pictures
from meduet_training.reporting.report import FACTORS, PANELS, VALIDATION, write_report
from meduet_training.reporting.validation_panel import validation_panel
from meduet_training.runtime.folders import check_writable, make_folder
from meduet_training.runtime.messages import print_to_stderr
from meduet_training.runtime.progress import LOG, OnRow, is_read, training_bar
from meduet_training.runtime.row_log import RowLog, read_rows
from meduet_training.runtime.signals import Stopped
from meduet_training.runtime.tensorboard import TensorBoardLog
from napari_meduet.core.analysis.classifier import ClassifierConfig
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.core.objective import Objective
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.errors import InputError
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import write_atomically

if TYPE_CHECKING:
    from meduet_training.engine.config import TrainingConfig

NUM_CROPS = 256  # for the probes; a panel shows at most four of each modality
NO_VALIDATION = "No scan is held out, so this run has no validation panels and no probes."


@contextmanager
def log_run(
    fabric: Fabric,
    folder: Path,
    training: "TrainingConfig",
    source: BatchSource[Any],
    tokenizer: Tokenizer | None,
    config: Mapping[str, Any],
    validator: Validator | None = None,
) -> Iterator[TrainerCallback]:
    """Yield the callback that records a training; on all processes but the first it does nothing.

    Args:
        folder: folder of the run.
        tokenizer: the tokenizer of the latents, which decodes the panels. None: a training on voxels.
        config: configuration of the run; the card leaves out its paths.
        validator: None: reconstructions, swaps and probes of the validation crops of the source.

    Raises:
        InputError: the folder cannot be written.
    """
    if not fabric.is_global_zero:
        yield NullCallback()
        return
    check_writable(folder)
    if validator is None and tokenizer is not None and isinstance(source, ValidationSource):
        crops = source.validation_crops(NUM_CROPS, training.seed)
        if crops:
            on_device = cast(Tokenizer, copy.deepcopy(cast(nn.Module, tokenizer)).to(fabric.device))
            validator = PretrainingValidation(crops, on_device, *source.statistics())
        else:
            print_to_stderr(NO_VALIDATION)
    card = RunCard(
        run=folder.resolve().name,
        total_steps=training.objective.total_steps,
        config=without_paths(config),
        data=RunData(
            sha256=source.sha256,
            domains=list(source.domains),
            latent_shape=list(source.latent_shape),
            tokenizer_sha256=tokenizer_sha256(cast(Any, tokenizer)) if tokenizer else None,
            validation=validator.counts() if validator else {},
            validation_note=validator.note if validator else NO_VALIDATION,
        ),
    )
    with training_bar(_bar_text(training), card.total_steps) as bar:
        logger = RunLogger(
            folder,
            card,
            bar,
            batch=training.batch,
            seed=training.seed,
            processes=fabric.world_size,
            validation=validator,
        )
        try:
            yield logger
        except BaseException as error:
            with suppress(InputError):  # the first error is more important, such as a full disk
                logger.close("stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed", error)
            raise
        logger.close("finished")


class PretrainingValidation(NoEarlyStopping):
    """Validator of a pretraining: reconstructions, swaps and probes of the validation crops."""

    def __init__(
        self, crops: ValidationCrops, tokenizer: Tokenizer, mean: torch.Tensor, std: torch.Tensor
    ) -> None:
        self.crops = crops
        self._tokenizer, self._mean, self._std = tokenizer, mean, std

    @property
    def note(self) -> str:
        return self.crops.note

    def counts(self) -> dict[str, int]:
        return self.crops.counts()

    def can_measure(self, objective: nn.Module) -> bool:
        """Return whether the pretext task has content and style."""
        return isinstance(objective, Objective)

    def pictures(self, objective: Objective, done: int, total: int) -> Iterator[tuple[str, Any]]:
        """Yield the panel of each modality, with its name."""
        shown = slices_of_crops(objective.student, self._tokenizer, self._mean, self._std, self.crops)
        for each in shown:
            name = each.modality or "all"
            yield name, validation_panel(each, f"{name} after {done:,} of {total:,} steps", self.crops.note)

    def metrics(self, objective: Objective, seed: int) -> tuple[dict[str, Any], dict[str, float]]:
        samples, error = measure_crops(objective.student, self.crops)
        analysis = analyse_factors(samples, seed, with_maps=False)
        curves = {"validation/reconstruction": error} | _probe_curves(analysis)
        return {"reconstruction": error} | analysis.as_data(), curves

    def at_end(self, objective: Objective, seed: int, folder: Path) -> None:
        """Write the factors of the last step, with their maps."""
        samples, _ = measure_crops(objective.student, self.crops)
        analysis = analyse_factors(samples, seed)
        make_folder(folder / FACTORS)
        write_factors(analysis, folder / FACTORS)
        write_factor_pictures(analysis, folder / FACTORS)


class RunLogger:
    """The callback of the first process (`TrainerCallback`)."""

    def __init__(
        self,
        folder: Path,
        card: RunCard,
        bar: OnRow,
        *,
        batch: int,
        seed: int,
        processes: int,
        validation: Validator | None,
    ) -> None:
        self._folder, self._card, self._bar = folder, card, bar
        self._batch, self._seed, self._validation = batch, seed, validation
        self._session = new_session(processes)
        self._logs: _Logs | None = None
        self._seconds: list[float] = []  # of the steps since the last row
        self._waits: list[float] = []

    def on_step(self, record: StepRecord) -> None:
        if self._session.first_step is None:
            self._session.first_step = record.step
        self._session.last_step = record.step
        logs = self._open_logs(record.step)
        self._seconds.append(record.step_seconds)
        self._waits.append(record.data_wait_seconds)
        if not is_read(record.step, self._card.total_steps):
            self._bar(record.step, None)
            return
        row = self._row(record)
        logs.steps.append({"step": record.step} | row)
        logs.curves.numbers(record.step, row)
        self._bar(record.step, row["loss/total"])

    def on_skip(self, step: int, samples: Sequence[str]) -> None:
        self._open_logs(step).steps.append({"step": step, "skipped": list(samples)})

    def on_validation(self, step: int, objective: nn.Module) -> None:
        """Write panels and metrics, if the validator supports the objective."""
        if self._validation is None or not self._validation.can_measure(objective):
            return
        logs, start = self._open_logs(step), time.monotonic()
        make_folder(self._folder / PANELS)
        for name, picture in self._validation.pictures(objective, step, self._card.total_steps):
            with write_atomically(
                self._folder / PANELS / f"step-{step:08d}-{name}.png", overwrite=True
            ) as temporary:
                picture.save(temporary, format="png")
            logs.curves.picture(step - 1, f"panel/{name}", picture)
        metrics, curves = self._validation.metrics(objective, self._seed)
        row = {"step": step, "seconds": time.monotonic() - start} | metrics
        self._validation.keep(objective, [*self._validated(step), row], self._folder)
        logs.validation.append(row)
        write_run_card(self._folder, self._card)  # so that the card knows the last step if the run is killed
        logs.curves.numbers(step - 1, curves)

    def lacks_validation(self, step: int) -> bool:
        return self._validation is not None and step not in [row["step"] for row in self._validated(step)]

    def reason_to_end(self, step: int) -> str:
        return self._validation.reason_to_end(self._validated(step)) if self._validation else ""

    def on_end(self, step: int, objective: nn.Module) -> None:
        """Write the analysis of the last step."""
        if self._validation is None or not self._validation.can_measure(objective):
            return
        self._open_logs(step)
        self._validation.at_end(objective, self._seed, self._folder)

    def close(self, status: Status, error: BaseException | None = None) -> None:
        """Write the end of the session to the card; a finished run gets its report."""
        if self._logs is None:
            return
        self._session.ended = now()
        self._card.status = status
        self._card.failure = type(error).__name__ if status == "failed" else None
        write_run_card(self._folder, self._card)
        if status == "finished":
            write_report(self._folder)

    def _validated(self, step: int) -> list[dict[str, Any]]:
        """Return the rows of the validations up to a step; later validations are repeated."""
        return [row for row in read_rows(self._folder / VALIDATION) if row["step"] <= step]

    def _open_logs(self, step: int) -> "_Logs":
        """Open the logs and write this session to the card, at the first step."""
        if self._logs is None:
            self._logs = _Logs(self._folder, step)
            self._card = start_session(self._folder, self._card, self._session)
        return self._logs

    def _row(self, record: StepRecord) -> dict[str, float]:
        """Return the row of a step; times are means over the steps since the last row."""
        seconds, waits = (sum(each) / len(each) for each in (self._seconds, self._waits))
        self._seconds.clear()
        self._waits.clear()
        return {
            **{f"loss/{name}": float(value.detach()) for name, value in record.losses.items()},
            "optimizer/learning_rate": record.learning_rate,
            "optimizer/gradient_norm": float(record.gradient_norm),
            **{f"features/{name}": float(value.detach()) for name, value in record.feature_norms.items()},
            "time/step_seconds": seconds,
            "time/data_wait_seconds": waits,
            "time/samples_per_second": self._batch / seconds,
        }


class _Logs:
    """The log files of a run."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self.steps = RowLog(folder / LOG, last_kept=first_step - 1)
        self.validation = RowLog(folder / VALIDATION, last_kept=first_step)  # its steps count finished steps
        self.curves = TensorBoardLog(folder, first_step)


def _bar_text(training: "TrainingConfig") -> str:
    """Return the text of the progress bar."""
    known = {GeneratorConfig: "a generator", UNETRConfig: "a segmenter", ClassifierConfig: "a classifier"}
    trained = known.get(type(training.network))
    return f"Training {trained}" if trained else "Pretraining"


def _probe_curves(analysis: FactorAnalysis) -> dict[str, float]:
    """Return the balanced accuracies of the probes, with chance and majority."""
    probes = {"content": analysis.content.probe, "style": analysis.style.probe}
    curves = {f"probe/{name}": probe.accuracy.value for name, probe in probes.items() if probe}
    for probe in probes.values():
        if probe:
            curves |= {"probe/chance": probe.chance, "probe/majority": probe.majority}
    return curves

"""The training loop of every task: train, validate, save checkpoints, and resume.

The trainer knows no task. A task gives it an objective (the module that returns the losses), a source (the
data) and a callback (log and validation). All random numbers of a step come with its batch
(data/sources/step_batches.py), so a run that was interrupted continues bit for bit. `step.py` holds the
arithmetic that all processes share in one step, and `resume.py` the content of a checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from meduet_training.data.sources.prefetching import Loading
from meduet_training.data.sources.protocol import BatchSource
from meduet_training.data.sources.step_batches import Shard, StepBatches
from meduet_training.engine.callbacks import NullCallback, StepRecord, TrainerCallback
from meduet_training.engine.checkpoints import FOLDER, Checkpoint, load_checkpoint, save_checkpoint
from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.engine.resume import (
    RunSettings,
    fill_network,
    fill_optimizer,
    find_checkpoint,
    gather_state,
    record_of,
)
from meduet_training.engine.step import (
    FEATURE_NORM,
    StepResult,
    gradient_norm,
    mean_over_processes,
    offending_rows,
)
from meduet_training.runtime.fabric import Hardware, apply_hardware_options, full_copy, run_on_rank_zero
from meduet_training.runtime.folders import make_folder
from meduet_training.runtime.heartbeat import COMPUTING, ReportStage, ignore_stage
from meduet_training.runtime.messages import TrainingFailed, print_to_stderr
from meduet_training.runtime.optimizer import adamw
from meduet_training.runtime.signals import Stopped
from napari_meduet.core.objective import Batch
from napari_meduet.core.schedules import warmup_cosine
from napari_meduet.errors import InputError

IN_PROCESS = Hardware(workers=0)  # the training process loads its own data
DEFAULT_OPTIONS = TrainerOptions()
NO_CALLBACK = NullCallback()


class NotFinite(TrainingFailed):
    """Losses or gradients stayed NaN or infinite. The weights are those of the last finite step."""

    exit_code = 3


def checked_batches(config: TrainingConfig, source: BatchSource[Any], shard: Shard) -> StepBatches:
    """Return the batches of a run for one process.

    Raises:
        InputError: the latents do not fit the network, or the batch cannot be split over the processes.
    """
    found, expected = (
        " x ".join(map(str, shape)) for shape in (source.latent_shape, config.network.latent_shape)
    )
    if found != expected:
        raise InputError(
            f"The latents have {found} numbers (channels first), but the network reads {expected}. Make the "
            "latents again, or choose another network."
        )
    try:
        return StepBatches(
            source, config.objective, config.network, batch=config.batch, seed=config.seed, share=shard
        )
    except ValueError as error:
        raise InputError(str(error)) from error


class Trainer:
    """Trains one objective, or resumes the run in a folder. All processes of a job use it together.

    Args:
        config: what is trained.
        source: the data.
        folder: folder of the run. If it holds checkpoints of this run, the training resumes from the newest.
        hardware: the configuration from which `fabric` was made.
        callback: receives steps and validations on rank zero.
        build_objective: returns the module to train: `forward(batch, step)` returns the losses, of which
            `total` is minimised, and `finish_step(step)` is called after each update. None: the `build`
            method of the objective's configuration.
        init_weights: sets the weights of a new objective. It runs on every process, only if there is no
            checkpoint, and must do the same on all of them.
        on_start: runs on rank zero as soon as the folder is known to belong to this run.
        should_stop: polled in every step on every process. If one process returns True, the run saves a
            checkpoint after that step and stops.
        report_stage: receives the step and the stage on every process, so that the watchdog can name a
            process that hangs.
        log: receives messages for the user on rank zero.

    Raises:
        InputError: the latents do not fit the network, or the batch cannot be split over the processes.

    Examples:
        >>> source = WindowSource(load_windows("windows.safetensors"), seed=0)  # doctest: +SKIP
        >>> Trainer(make_fabric("cpu"), tiny(), source, Path("runs/tiny")).fit()  # doctest: +SKIP
    """

    objective: nn.Module
    model: _FabricModule  # the objective as Fabric set it up
    optimizer: _FabricOptimizer
    trained: list[nn.Parameter]

    def __init__(
        self,
        fabric: Fabric,
        config: TrainingConfig,
        source: BatchSource[Any],
        folder: Path,
        *,
        hardware: Hardware = IN_PROCESS,
        options: TrainerOptions = DEFAULT_OPTIONS,
        callback: TrainerCallback = NO_CALLBACK,
        build_objective: Callable[[], nn.Module] | None = None,
        init_weights: Callable[[nn.Module], None] = lambda objective: None,
        on_start: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
        report_stage: ReportStage = ignore_stage,
        log: Callable[[str], None] = print_to_stderr,
    ) -> None:
        self.fabric, self.config, self.folder = fabric, config, folder
        self.hardware, self.options, self.callback = hardware, options, callback
        self.build_objective = build_objective or (lambda: cast(Any, config.objective).build(config.network))
        self.init_weights, self.on_start = init_weights, on_start
        self.should_stop, self.report_stage, self.log = should_stop, report_stage, log
        self.step = self.first_step = 0  # number of steps done, now and at the start of this process
        self.skipped = 0  # number of the last steps that were skipped one after the other
        shard = Shard(rank=fabric.global_rank, num_ranks=fabric.world_size, accumulate=hardware.accumulate)
        self.batches = checked_batches(config, source, shard)
        mean, std = source.statistics()
        self.settings = RunSettings(
            training=asdict(config),
            data_sha256=source.sha256,
            domains=list(source.domains),
            latent_mean=mean.tolist(),
            latent_std=std.tolist(),
            processes=fabric.world_size,
            accumulate=hardware.accumulate,
        )

    def fit(self) -> None:
        """Train to the last step, or until the callback gives a reason to end.

        Raises:
            InputError: the folder holds a checkpoint of another run.
            Stopped: `should_stop` returned True before the last step.
            NotFinite: more than `options.skips` consecutive steps had to be skipped.
        """
        self.setup()
        total, reason = self.config.total_steps, ""
        if self.step and self.options.validates_after(self.step, total):
            reason = self.validate()  # the process may have been killed between checkpoint and validation
        workers, pin = self.hardware.workers, self.fabric.device.type == "cuda"
        with closing(Loading(self.batches, first_step=self.step, workers=workers, pin=pin)) as loading:
            while self.step < total and not reason:
                result = self.train_step(loading)
                self.step += 1
                if result.was_taken:
                    self.skipped = 0
                    if self.fabric.is_global_zero:
                        self.callback.on_step(result.record)
                else:
                    self.skip_step(result)
                saves = self.options.saves_after(self.step, total)
                if saves or result.should_stop:
                    self.save_checkpoint()
                if result.should_stop and self.step < total:
                    raise Stopped(
                        f"Stopped after step {self.step} of {total}; the same command goes on from there."
                    )
                if self.options.validates_after(self.step, total):
                    reason = self.validate()
                    if reason and not saves:
                        self.save_checkpoint()
        self.end(reason)

    def setup(self) -> None:
        """Build objective and optimizer, and load the newest checkpoint of the run if there is one."""
        run_on_rank_zero(self.fabric, lambda: make_folder(self.folder))
        checkpoint = self._find_checkpoint()
        run_on_rank_zero(self.fabric, self.on_start)
        self.fabric.seed_everything(self.config.seed, verbose=False)
        self.objective = self.build_objective()
        if checkpoint:
            self.step, self.skipped = checkpoint.step, int(checkpoint.record["skipped"])
            fill_network(checkpoint, self.objective)
        else:
            self.init_weights(self.objective)
        self.first_step = self.step
        apply_hardware_options(self.objective, self.hardware)
        self.model = self.fabric.setup_module(self.objective)
        self.model.train()
        self._optimizer: Optimizer = adamw(
            self.objective,
            learning_rate=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            betas=self.config.betas,
        )
        if checkpoint:
            fill_optimizer(checkpoint, self.fabric, self.objective, self._optimizer)
        self.optimizer = cast(_FabricOptimizer, self.fabric.setup_optimizers(self._optimizer))
        self.trained = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]

    def train_step(self, loading: Loading) -> StepResult:
        """Compute the gradient of one step on all processes, and update the weights if it is finite."""
        step, started, waited_before = self.step, time.monotonic(), loading.waited
        learning_rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["share"]
        parts: list[Batch] = []
        sums: dict[str, Tensor] = {}
        for part in range(self.hardware.accumulate):
            self.report_stage(step, "reading")
            batch = self.fabric.to_device(loading.next())
            self.report_stage(step, COMPUTING)
            is_last = part + 1 == self.hardware.accumulate
            with self.fabric.no_backward_sync(self.model, enabled=not is_last):
                losses = self.model(batch, step)
                self.fabric.backward(losses["total"] / self.hardware.accumulate)
            parts.append(batch)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() / self.hardware.accumulate
        norm = gradient_norm(self.trained)
        means, should_stop = mean_over_processes(self.fabric, sums, self.should_stop())
        was_taken = bool((means["total"] + norm).isfinite())
        if was_taken:
            nn.utils.clip_grads_with_norm_(self.trained, self.config.clip, norm)
            self.optimizer.step()
            cast(Any, self.objective).finish_step(step)
        self.optimizer.zero_grad(set_to_none=True)
        record = StepRecord(
            step=step,
            losses={name: value for name, value in means.items() if not name.startswith(FEATURE_NORM)},
            learning_rate=learning_rate,
            gradient_norm=norm,
            feature_norms={
                name.removeprefix(FEATURE_NORM): value
                for name, value in means.items()
                if name.startswith(FEATURE_NORM)
            },
            step_seconds=time.monotonic() - started,
            data_wait_seconds=loading.waited - waited_before,
        )
        return StepResult(record=record, was_taken=was_taken, should_stop=should_stop, parts=parts)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine."""
        end = self.config.end_learning_rate / self.config.learning_rate
        return self.config.learning_rate * warmup_cosine(
            step, self.config.total_steps, end=end, warmup=self.config.warmup
        )

    def skip_step(self, result: StepResult) -> None:
        """Report a step whose loss or gradient was not finite.

        Raises:
            NotFinite: too many consecutive steps were skipped. A checkpoint from before them is saved.
        """
        self.skipped += 1
        samples = self._offending_samples(result)
        scans = ", ".join(samples)
        if self.fabric.is_global_zero:
            step = result.record.step
            self.callback.on_skip(step, samples)
            self.log(f"Step {step} was skipped: loss or gradient was not finite. Scans: {scans}.")
        if self.skipped > self.options.skips:
            skipped, self.step, self.skipped = self.skipped, self.step - self.skipped, 0
            self.save_checkpoint()
            raise NotFinite(
                f"Stopped after {skipped} steps in a row whose loss or gradient was not finite; the last one "
                f"had the scans {scans}. The newest checkpoint is from before these steps. Check the scans, "
                f"or lower the learning rate; the same command goes on from step {self.step}."
            )

    def save_checkpoint(self) -> None:
        """Save the state after the last step. Rank zero writes it."""
        self.report_stage(max(self.step - 1, 0), "saving")
        tensors = gather_state(self.fabric, self.objective, self._optimizer)
        record = record_of(self.settings) | {"skipped": self.skipped}
        run_on_rank_zero(
            self.fabric,
            lambda: save_checkpoint(self.folder, self.step, tensors, record, self.options.keep),
        )

    def validate(self) -> str:
        """Run the validation unless it was already done; return a reason to end the run, or ""."""
        if self.step > self.first_step or run_on_rank_zero(
            self.fabric, lambda: self.callback.lacks_validation(self.step)
        ):
            self.report_stage(self.step, "validating")
            self._show(self.callback.on_validation)
        return run_on_rank_zero(self.fabric, lambda: self.callback.reason_to_end(self.step))

    def end(self, reason: str) -> None:
        """Report why the run ended early, if it did, and show the final objective to the callback."""
        if reason and self.step < self.config.total_steps and self.fabric.is_global_zero:
            self.log(f"Ended after step {self.step} of {self.config.total_steps}: {reason}")
        self.report_stage(self.step, "ending")
        self._show(self.callback.on_end)

    def _find_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to resume from. Rank zero finds it; the others read the same file."""
        found: list[Checkpoint | None] = [None]

        def find() -> str:
            found[0] = find_checkpoint(self.folder, self.settings, self.log)
            return found[0].path.name if found[0] else ""

        name = run_on_rank_zero(self.fabric, find)
        if self.fabric.is_global_zero or not name:
            return found[0]
        return load_checkpoint(self.folder / FOLDER / name)

    def _offending_samples(self, result: StepResult) -> Sequence[str]:
        """Return hashes of the scans that made a step not finite, or of all scans if no single one did."""
        step = result.record.step
        rows = offending_rows(self.fabric, self.objective, step, result.parts).tolist()
        samples = [choice.sample for choice in self.batches.choose(step)]
        return sorted(
            {sample for sample, is_offending in zip(samples, rows, strict=True) if is_offending}
            or set(samples)
        )

    def _show(self, callback: Callable[[int, nn.Module], None]) -> None:
        """Call a callback on rank zero with the full objective in evaluation mode, while the others wait."""
        full = full_copy(self.fabric, self.objective, self.build_objective)
        if full is not None:
            full.eval()
            callback(self.step, full)
            self.objective.train()
        self.fabric.barrier()

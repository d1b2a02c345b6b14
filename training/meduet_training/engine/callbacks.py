"""Callbacks of the trainer: what is called during a training, on rank zero only.

A callback may ask the trainer to end the run; it changes nothing else. `reporting/run_logger.py` is the
callback that writes log, panels and card.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class StepRecord:
    """One step. Its tensors are on the device of the training, so reading one waits for the device.

    Attributes:
        losses: losses of this step, averaged over all processes.
        gradient_norm: norm of the gradient before clipping.
        feature_norms: mean norm of the tokens of each factor.
        step_seconds: duration of the step with data loading, without checkpoints and validation.
        data_wait_seconds: part of `step_seconds` in which the step waited for data.
    """

    step: int
    losses: dict[str, Tensor]
    learning_rate: float
    gradient_norm: Tensor
    feature_norms: dict[str, Tensor]
    step_seconds: float
    data_wait_seconds: float


class TrainerCallback(Protocol):
    """Methods that the trainer calls on rank zero."""

    def on_step(self, record: StepRecord) -> None:
        """A step was taken."""
        ...

    def on_skip(self, step: int, samples: Sequence[str]) -> None:
        """A step was skipped because its loss or gradient was not finite.

        Args:
            samples: hashes of the scans that caused it, or of all scans of the batch if none did so alone.
        """
        ...

    def on_validation(self, step: int, objective: nn.Module) -> None:
        """Validate the full objective, which is in evaluation mode, after `step` steps."""
        ...

    def lacks_validation(self, step: int) -> bool:
        """Return whether the validation after `step` steps is missing, because the run was killed."""
        ...

    def reason_to_end(self, step: int) -> str:
        """Return a sentence if the validations up to `step` are a reason to end the run; otherwise ""."""
        ...

    def on_end(self, step: int, objective: nn.Module) -> None:
        """The run has ended after `step` steps. `objective` is in evaluation mode."""
        ...


class NullCallback:
    """A callback that does nothing."""

    def on_step(self, record: StepRecord) -> None:
        pass

    def on_skip(self, step: int, samples: Sequence[str]) -> None:
        pass

    def on_validation(self, step: int, objective: nn.Module) -> None:
        pass

    def lacks_validation(self, step: int) -> bool:
        return False

    def reason_to_end(self, step: int) -> str:
        return ""

    def on_end(self, step: int, objective: nn.Module) -> None:
        pass


class LossCallback(NullCallback):
    """A callback that gives each step and its losses to a function.

    Examples:
        >>> callback = LossCallback(lambda step, losses: print(step, float(losses["total"])))
    """

    def __init__(self, on_step: Callable[[int, dict[str, Tensor]], None]) -> None:
        self._on_step = on_step

    def on_step(self, record: StepRecord) -> None:
        self._on_step(record.step, record.losses)

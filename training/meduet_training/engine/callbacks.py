"""What may look on while a network is trained. The loop tells it; it may ask for the end, no more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class StepRecord:
    """One step that was taken. Tensors lie on the training's device: reading one waits for it.

    Attributes:
        losses: of this step; over several processes, the mean of all of them.
        gradient_norm: before it was clipped.
        feature_norms: mean norm of the tokens of each factor.
        step_seconds: that the step took, data included, checkpoints and panels not.
        data_wait_seconds: of which it waited for data.
    """

    step: int
    losses: dict[str, Tensor]
    learning_rate: float
    gradient_norm: Tensor
    feature_norms: dict[str, Tensor]
    step_seconds: float
    data_wait_seconds: float


class TrainerCallback(Protocol):
    """Is told of a training as it goes, on the first process alone."""

    def on_step(self, record: StepRecord) -> None: ...

    def on_skip(self, step: int, samples: Sequence[str]) -> None:
        """A step was skipped, because its loss or gradient was not finite.

        Args:
            samples: hashes of the scans that made it so, or of all in the batch where none did so alone.
        """
        ...

    def on_validation(self, step: int, objective: nn.Module) -> None:
        """Every so many steps, with the whole network, in evaluation mode."""
        ...

    def lacks_validation(self, step: int) -> bool:
        """Whether a run that goes on after so many steps was killed before their validation."""
        ...

    def reason_to_end(self, step: int) -> str:
        """What the validations of so many steps say for ending here, as a sentence; empty: go on."""
        ...

    def on_end(self, step: int, objective: nn.Module) -> None:
        """Once, after the last step that was taken."""
        ...


class NullCallback:
    """Nobody looks on."""

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
    """Hands the step and its losses to a function."""

    def __init__(self, on_step: Callable[[int, dict[str, Tensor]], None]) -> None:
        self._on_step = on_step

    def on_step(self, record: StepRecord) -> None:
        self._on_step(record.step, record.losses)

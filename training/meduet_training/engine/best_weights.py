"""The best weights of a run, beside its checkpoints: what is exported where validations judged the run."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

BEST = "best.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class BestWeights:
    """The average of the weights after the step with the best validation."""

    tensors: dict[str, Tensor]
    step: int
    score: float


def write_best(folder: Path, network: nn.Module, step: int, score: float) -> None:
    """Keep a network's weights in the run's folder, in the place of those before."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with write_atomically(folder / BEST, overwrite=True) as temporary:
        save_file(tensors, temporary, {"step": str(step), "score": repr(score)})


def read_best(folder: Path) -> BestWeights | None:
    """What was kept; None where nothing was.

    Raises:
        InputError: it is damaged.
    """
    path = folder / BEST
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        return BestWeights(tensors=tensors, step=int(words["step"]), score=float(words["score"]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder.name}/{BEST} is damaged; delete it, and the newest checkpoint is taken."
        ) from error

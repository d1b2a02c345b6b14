"""The weights of the best validation, in the folder of a run beside its checkpoints.

Fine-tuning tasks export these weights. `early_stopping.py` decides which validation is the best.
"""

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
    """Averaged weights after the step with the best validation.

    Attributes:
        score: validation score of these weights.
    """

    tensors: dict[str, Tensor]
    step: int
    score: float


def write_best(folder: Path, network: nn.Module, step: int, score: float) -> None:
    """Store the weights of a network in the folder of a run, and replace those of earlier validations."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with write_atomically(folder / BEST, overwrite=True) as temporary:
        save_file(tensors, temporary, {"step": str(step), "score": repr(score)})


def read_best(folder: Path) -> BestWeights | None:
    """Return the best weights in the folder of a run; None if there are none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / BEST
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        return BestWeights(tensors=tensors, step=int(metadata["step"]), score=float(metadata["score"]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder.name}/{BEST} is damaged; delete it, and the newest checkpoint is used."
        ) from error

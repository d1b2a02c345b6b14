"""Run one training of the wavelet tokenizer: show progress, and save the weights during and after training.

`training.py` holds the training loop; `data/tokenizer_files.py` holds the file format.
"""

from pathlib import Path

from lightning_fabric import Fabric

from meduet_training.data.caches.prepared import WorkingScan
from meduet_training.data.tokenizer_files import save_tokenizer
from meduet_training.runtime.folders import make_folder
from meduet_training.runtime.progress import training_progress
from meduet_training.tasks.tokenizer.training import TokenizerTraining, train_tokenizer

SAVE_EVERY = 200  # steps


def run_tokenizer_training(
    fabric: Fabric, scans: list[WorkingScan], training: TokenizerTraining, folder: Path
) -> None:
    """Train a tokenizer, and write `tokenizer.safetensors` and `log.jsonl` into the folder."""
    make_folder(folder)
    with training_progress("Tokenizer", training.steps, folder) as on_step:
        for step, losses, tokenizer in train_tokenizer(fabric, scans, training):
            on_step(step, losses)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == training.steps:
                save_tokenizer(tokenizer, folder)

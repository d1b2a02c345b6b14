"""Runs one tokenizer training: progress bar, a line of log now and then, weights as it goes and at the end."""

import json
from dataclasses import asdict
from pathlib import Path

from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from meduet_training.data.prepared import PreparedScan
from meduet_training.machinery.progress import training_progress
from meduet_training.tokenizer_training import TokenizerTraining, train_tokenizer
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer
from napari_meduet.volumes.files import write_atomically

WEIGHTS = "tokenizer.safetensors"
LOG_EVERY = 50  # steps
SAVE_EVERY = 200  # steps


def run_tokenizer_training(
    fabric: Fabric, scans: list[PreparedScan], training: TokenizerTraining, folder: Path
) -> None:
    """Train, and write `tokenizer.safetensors` and `log.jsonl` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with training_progress("Tokenizer", training.steps) as on_step, (folder / "log.jsonl").open("w") as log:
        for step, losses, tokenizer in train_tokenizer(fabric, scans, training):
            on_step(step, losses)
            is_last = step + 1 == training.steps
            if step % LOG_EVERY == 0 or is_last:
                row = {name: value.detach().item() for name, value in losses.items()}
                log.write(json.dumps({"step": step} | row) + "\n")
                log.flush()
            if (step + 1) % SAVE_EVERY == 0 or is_last:
                _save(tokenizer, folder / WEIGHTS)


def load_tokenizer(folder: Path) -> WaveletTokenizer:
    """The trained tokenizer of a folder, on the CPU."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        config = WaveletConfig(**json.loads(file.metadata()["config"]))
    tokenizer = WaveletTokenizer(config)
    tokenizer.load_state_dict(load_file(folder / WEIGHTS))
    return tokenizer.eval()


def _save(tokenizer: WaveletTokenizer, path: Path) -> None:
    with write_atomically(path, overwrite=True) as temporary:
        save_file(
            tokenizer.state_dict(), temporary, metadata={"config": json.dumps(asdict(tokenizer.config))}
        )

"""Runs one tokenizer training: progress bar, a line of log every hundred steps, weights at the end."""

import json
from dataclasses import asdict
from pathlib import Path

from lightning_fabric import Fabric
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file

from meduet_training.data.prepared import PreparedScan
from meduet_training.tokenizer_training import TokenizerTraining, train_tokenizer
from napari_meduet.tokenizers.wavelet import WaveletTokenizer
from napari_meduet.volumes.files import write_atomically

LOG_EVERY = 50  # steps
SAVE_EVERY = 200  # steps


def run_tokenizer_training(
    fabric: Fabric, scans: list[PreparedScan], training: TokenizerTraining, folder: Path
) -> WaveletTokenizer:
    """Train, write `tokenizer.safetensors` and `log.jsonl` into the folder, return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    tokenizer = None
    with Progress(*columns) as progress, (folder / "log.jsonl").open("w") as log:
        task = progress.add_task("Training the tokenizer", total=training.steps, loss="")
        for step, losses, tokenizer in train_tokenizer(fabric, scans, training):
            progress.update(task, completed=step + 1)
            if step % LOG_EVERY == 0 or step == training.steps - 1:
                row = {"step": step} | {name: float(value) for name, value in losses.items()}
                log.write(json.dumps(row) + "\n")
                log.flush()
                progress.update(task, loss=f"log error {row['reconstruction']:.3f}")
            if (step + 1) % SAVE_EVERY == 0 or step == training.steps - 1:
                _save(tokenizer, training, folder)
    return tokenizer.eval()


def _save(tokenizer: WaveletTokenizer, training: TokenizerTraining, folder: Path) -> None:
    with write_atomically(folder / "tokenizer.safetensors", overwrite=True) as temporary:
        save_file(
            tokenizer.state_dict(), temporary, metadata={"config": json.dumps(asdict(training.network))}
        )

"""A job that is asked to stop, by the very command that a person types (T5)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import torch
from small import WAVELET, random_windows

from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.caches.latent_windows import save_windows
from meduet_training.data.tokenizer_files import save_tokenizer
from meduet_training.engine.checkpoints import checkpoint_paths, newest_checkpoint
from meduet_training.runtime.row_log import read_rows
from napari_meduet.tokenizers.wavelet import WaveletTokenizer

TORCHRUN = (
    "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    "-m", "meduet_training.commands.pretrain", "run",
)  # fmt: skip
SETTINGS = (
    "training.network.width=24", "training.network.depth=1", "training.network.heads=2",
    "training.network.content_width=24", "training.network.style_width=12",
    "training.network.decoder_width=24", "training.network.decoder_depth=1",
    "training.network.decoder_heads=2", "hardware.workers=0", "trainer.checkpoint_every=1000",
)  # fmt: skip
STEPS = 120
WITHIN_S = 25.0  # torchrun kills after 30


def asked_to_stop(folder: Path, chance: Random) -> None:
    """SIGTERM to torchrun: all ranks end after the same step; the command goes on to the bit."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    tokenizer = WaveletTokenizer(WAVELET)
    (folder / "tokenizer").mkdir()
    save_tokenizer(tokenizer, folder / "tokenizer")
    windows = random_windows(num_anatomies=2, side=24, tokenizer_sha256=tokenizer_sha256(tokenizer))
    save_windows(windows, folder / "windows.safetensors")
    whole, parts = folder / "whole", folder / "parts"
    assert _start(folder, whole).wait(300) == 0
    job = _start(folder, parts)
    _wait_for_a_row(parts, job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(WITHIN_S) != 0
    said = " ".join((folder / "parts.txt").read_text().split())
    (stopped,) = checkpoint_paths(parts)
    step = int(stopped.stem.removeprefix("step-"))
    assert 0 < step < STEPS
    assert said.count(f"Stopped after step {step} of {STEPS}; the same command goes on from there.") == 1
    assert "exitcode : 75" in said or "exitcode: 75" in said or "SignalException" in said, said
    assert _start(folder, parts).wait(300) == 0, (folder / "parts.txt").read_text()
    expected, found = newest_checkpoint(whole), newest_checkpoint(parts)
    assert expected is not None
    assert found is not None
    assert found.step == expected.step == STEPS
    assert found.tensors.keys() == expected.tensors.keys()
    differing = [
        name for name, value in found.tensors.items() if not torch.equal(value, expected.tensors[name])
    ]
    assert differing == []


def _start(folder: Path, output: Path) -> subprocess.Popen[bytes]:
    sources = ["--windows", folder / "windows.safetensors", "--tokenizer", folder / "tokenizer"]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    options = ["--steps", str(STEPS), "--batch", "4", "--device", "cpu", *settings]
    with output.with_suffix(".txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, *TORCHRUN, *sources, "-o", output, *options],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def _wait_for_a_row(output: Path, job: subprocess.Popen[bytes]) -> None:
    while len(read_rows(output / "log.jsonl")) < 2:
        assert job.poll() is None
        time.sleep(0.05)

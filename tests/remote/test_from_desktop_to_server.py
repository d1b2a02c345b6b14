"""The complete path without stand-ins: a real pretraining on a server, and its model on the desktop."""

import json
import sys
from pathlib import Path

import torch
import yaml
from typer.testing import CliRunner

from meduet_training.commands.pretrain import app
from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.caches.latent_windows import save_windows
from meduet_training.data.tokenizer_files import save_tokenizer
from napari_meduet.models.folders import installed_models
from napari_meduet.models.loading import load_model
from napari_meduet.tokenizers.wavelet import WaveletTokenizer

sys.path.append(str(Path(__file__).parents[1] / "training"))
from small import NARROW, WAVELET, random_windows


def test_a_pretraining_launched_from_a_desktop_gives_a_model_that_loads(home, tmp_path):
    tokenizer = WaveletTokenizer(WAVELET)
    (tmp_path / "tokenizer").mkdir()
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    windows = random_windows(num_anatomies=2, tokenizer_sha256=tokenizer_sha256(tokenizer))
    save_windows(windows, tmp_path / "windows.safetensors")
    config = {
        "data": {"windows": str(tmp_path / "windows.safetensors"), "tokenizer": str(tmp_path / "tokenizer")},
        "training": {"batch": 2, "network": NARROW, "objective": {"total_steps": 1}},
        "hardware": {"device": "cpu", "workers": 0},
    }
    (tmp_path / "narrow.yaml").write_text(yaml.safe_dump(config))
    program = tmp_path / "meduet-pretrain"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m meduet_training.commands.pretrain \"$@\"\n")
    program.chmod(0o755)
    there = ["--program", str(program), "--jobs", str(tmp_path / "jobs"), "--gpus=0", "--executor=local"]
    result = CliRunner().invoke(app, ["launch", "--host", "server", str(tmp_path / "narrow.yaml"), *there])
    assert result.exit_code == 0, result.output
    ((name, folder),) = installed_models()
    assert name == folder.name
    assert name.startswith("narrow-")
    model = load_model(folder, "cpu")
    assert all(torch.isfinite(weight).all() for weight in model.meduet.parameters())
    rows = [json.loads(line) for line in (tmp_path / "jobs" / name / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 0

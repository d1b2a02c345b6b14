"""A disk that fills up under log, curves, latent cache and model (T11): real ones, in memory.

What was there stays, a sentence says what is needed and what is free, and with more room the same command
goes on. Checkpoints on a full disk: `test_checkpoints.py` and the row T11.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from caching import entries, fill, save_cohort, save_index, tokenizer_folder
from PIL import Image
from small import WAVELET, network, random_windows
from small_disks import fill_up, resize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands import cache, pretrain
from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.caches.latent_windows import save_windows
from meduet_training.data.caches.latents import FAILED
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.tokenizer_files import save_tokenizer
from meduet_training.engine.checkpoints import FOLDER
from meduet_training.runtime.row_log import RowLog, read_rows
from meduet_training.runtime.tensorboard import TensorBoardLog
from meduet_training.tasks.pretraining import presets as recipes
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.tokenizers.wavelet import WaveletTokenizer

ROW = {"loss": 0.5, "words": "x" * 900}
NEEDED_AND_FREE = r"no space left on device; \d+\.\d+ [kM]B are needed, 0\.0 kB are free"


def call(app, *words):
    return CliRunner().invoke(app, [str(word) for word in words])


def check_told(done, *parts: str) -> None:
    """Exit code 2 and one sentence or two, no traceback."""
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    for part in (*parts, "no space left on device", " are free"):
        assert part in said
    assert "Traceback" not in said


def last_before_full(append: Callable[[int], None], said: str) -> int:
    """The last of the steps from 1 on that found room."""
    appended = []

    def append_until_full() -> None:
        for step in range(1, 1000):
            append(step)
            appended.append(step)

    with pytest.raises(InputError, match=said):
        append_until_full()
    assert len(appended) > 5
    return appended[-1]


def test_a_log_keeps_its_rows(small_disk):
    log = RowLog(small_disk / "log.jsonl", last_kept=-1)
    log.append({"step": 0})
    fill_up(small_disk, 8192)
    step = last_before_full(
        lambda step: log.append({"step": step} | ROW), rf"disk/log.jsonl: .* \({NEEDED_AND_FREE}\)"
    )
    lines = (small_disk / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(step + 1))  # the last one too is whole
    with pytest.raises(InputError, match=r"log.jsonl: cannot be written \(no space left on device; .* free"):
        RowLog(small_disk / "log.jsonl", last_kept=step)
    assert len(read_rows(small_disk / "log.jsonl")) == step + 1


def test_curves_keep_their_points(small_disk):
    curves = TensorBoardLog(small_disk, 0)
    fill_up(small_disk, 8192)
    step = last_before_full(
        lambda step: curves.numbers(step, {"loss/total": float(step), "loss/other": 0.5}), NEEDED_AND_FREE
    )
    with pytest.raises(InputError, match="are needed"):
        curves.picture(step, "panel", Image.effect_noise((256, 256), 50.0).convert("RGB"))
    (small_disk / "filler").unlink()
    curves.numbers(step + 1, {"loss/total": 7.0})
    found = EventAccumulator(str(small_disk / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    values = [(event.step, event.value) for event in found.Scalars("loss/total")]
    assert values == [*((k, float(k)) for k in range(1, step + 1)), (step + 1, 7.0)]


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Windows and a tokenizer for the smallest of runs."""
    narrow = replace(recipes.tiny(), network=network(grid=(6, 6, 6)), batch=2)
    monkeypatch.setitem(recipes.PRESETS, "tiny", lambda: narrow)
    torch.manual_seed(0)
    (tmp_path / "tokenizer").mkdir()
    tokenizer = WaveletTokenizer(WAVELET)
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    windows = random_windows(num_anatomies=2, side=24, tokenizer_sha256=tokenizer_sha256(tokenizer))
    save_windows(windows, tmp_path / "windows.safetensors")
    return tmp_path


def test_a_run_and_its_model(given, small_disk, monkeypatch):
    """Checkpoints lie on another disk, so that it is a log or the card that finds no room."""
    output = small_disk / "run"
    output.mkdir()
    (output / FOLDER).symlink_to(given / "elsewhere", target_is_directory=True)
    (given / "elsewhere").mkdir()
    sources = ["--windows", given / "windows.safetensors", "--tokenizer", given / "tokenizer"]
    options = ["--steps", 21, "--device", "cpu", "--set", "hardware.workers=0"]
    command = ["run", *sources, "-o", output, *options, "--set", "trainer.validate_every=1000"]
    shutil.copy2(given / "tokenizer" / "tokenizer.safetensors", output)
    fill_up(small_disk, 12288)
    check_told(call(pretrain.app, *command), "run")
    kept = read_rows(output / "log.jsonl")
    resize(small_disk, "64m")
    done = call(pretrain.app, *command)
    assert done.exit_code == 0, done.output
    rows = read_rows(output / "log.jsonl")
    assert [row["step"] for row in rows] == [0, 20]
    assert rows[: len(kept)] == kept
    check_replacing(["export", output, "-o", small_disk / "model", "--overwrite"], small_disk, monkeypatch)


def check_replacing(export, small_disk, monkeypatch):
    """A model is replaced whole or not at all, wherever the disk fills up."""
    model = small_disk / "model"
    save_tiny_model(model)
    before = load_model(model, "cpu").sha256
    needed = sum(path.stat().st_size for path in model.iterdir())
    fill_up(small_disk, 8192)
    check_told(call(pretrain.app, *export), "model: cannot be written", "are needed, 8.2 kB are free")
    monkeypatch.setattr("napari_meduet.models.saving.check_room", lambda folder, num_bytes: None)
    refusals = 0
    for room in range(0, 4 * needed, needed // 3):  # in any of the files, or of the copies kept meanwhile
        fill_up(small_disk, room)
        done = call(pretrain.app, *export)
        if done.exit_code == 0:
            break
        check_told(done, "nothing was changed")
        assert load_model(model, "cpu").sha256 == before
        refusals += 1
    assert refusals > 2
    assert load_model(model, "cpu").sha256 != before


def test_a_cache_keeps_its_entries(small_disk, tmp_path):
    scans, tokenizer = save_cohort(tmp_path / "scans"), tokenizer_folder(tmp_path / "model")
    fill(tmp_path / "whole", tokenizer, scans)
    expected = entries(tmp_path / "whole")
    resize(small_disk, f"{sum(map(len, expected.values())) // 2 // 1024}k")
    output = small_disk / "cache"
    command = [save_index(scans), "-o", output, "--tokenizer", tokenizer, "--device", "cpu"]
    check_told(call(cache.app, *command), "An entry needs ", "the same command continues from there")
    found = entries(output)
    assert 0 < len(found) < len(expected)
    assert found == {name: expected[name] for name in found}
    assert not list((output / FAILED).iterdir())
    resize(small_disk, "64m")
    done = call(cache.app, *command)
    assert done.exit_code == 0, done.output
    assert entries(output).keys() == expected.keys()
    (output / "summary.json").unlink()
    fill_up(small_disk, 0)
    check_told(call(cache.app, *command), "summary.json: cannot be written")
    (small_disk / "filler").unlink()
    assert call(cache.app, *command).exit_code == 0
    assert CacheSource(output, seed=1).num_failed == 0

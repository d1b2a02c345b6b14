"""A real pretraining with two processes on a real SLURM cluster, stopped before its end."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from waiting import wait_until

from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.caches.latent_windows import save_windows
from meduet_training.data.tokenizer_files import save_tokenizer
from meduet_training.jobs.store import Resources, read_attempts
from meduet_training.jobs.submission import pretraining_command, submit
from napari_meduet.errors import InputError
from napari_meduet.tokenizers.wavelet import WaveletTokenizer

sys.path.append(str(Path(__file__).parents[1] / "training"))
from small import NARROW, WAVELET, random_windows

STEPS = 300
PATIENCE_SECONDS = 300  # torch is started four times, on a busy machine
TWO = Resources(gpus=2)  # this SLURM only counts GPUs; each gets a process


def configuration(folder: Path, batch: int) -> Path:
    """Write the configuration of a run of seconds, and the files that it reads."""
    tokenizer = WaveletTokenizer(WAVELET)
    (folder / "tokenizer").mkdir()
    save_tokenizer(tokenizer, folder / "tokenizer")
    windows = random_windows(num_anatomies=4, tokenizer_sha256=tokenizer_sha256(tokenizer))
    save_windows(windows, folder / "windows.safetensors")
    config = {
        "data": {"windows": str(folder / "windows.safetensors"), "tokenizer": str(folder / "tokenizer")},
        "training": {"batch": batch, "network": NARROW, "objective": {"total_steps": STEPS}},
        "hardware": {"device": "cpu", "workers": 0},
        "trainer": {"validate_every": STEPS, "checkpoint_every": STEPS},
    }
    (folder / "narrow.yaml").write_text(yaml.safe_dump(config))
    return folder / "narrow.yaml"


@pytest.mark.usefixtures("slurm")
def test_two_ranks_save_at_the_warning_of_slurm_are_requeued_and_finish(tmp_path):
    config = configuration(tmp_path, batch=4)
    job = submit(config, tmp_path / "jobs", TWO, "slurm")
    wait_until(job, lambda found: found.metrics is not None, PATIENCE_SECONDS)
    subprocess.run(["scancel", "--signal=USR1", job.scheduler_id], check=True)
    found = wait_until(job, lambda found: found.is_over, PATIENCE_SECONDS)
    log = job.log.read_text()
    assert (found.state, found.attempts, found.exit_code) == ("finished", 2, 0), log
    requeued = read_attempts(job.folder)[1]
    assert (requeued.outcome, requeued.exit_code) == ("requeued", 75)
    saved = int(requeued.checkpoint.removeprefix("step-").removesuffix(".safetensors"))
    assert 0 < saved < STEPS
    assert f"Stopped after step {saved} of {STEPS}" in " ".join(log.split())
    assert (job.folder / "checkpoints" / f"step-{STEPS:08d}.safetensors").exists()


def test_a_batch_that_does_not_split_is_refused_at_the_submission(tmp_path):
    config = configuration(tmp_path, batch=2)
    with pytest.raises(InputError, match=r"narrow\.yaml: A batch of 2 .* 2 processes .* a multiple of 4"):
        pretraining_command(config, tmp_path / "job", Resources(gpus=1, nodes=2).processes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("preset: tiny\n", r"run\.yaml: Give one of --cache"),
        ("hardwear: {}\n", r"run\.yaml: there is no option hardwear; did you mean hardware\?"),
        ("data: {cache: absent, tokenizer: absent}\n", r"data\.cache: there is no absent on this machine"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused_at_the_submission(content, sentence, tmp_path):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(InputError, match=sentence):
        submit(tmp_path / "run.yaml", tmp_path / "jobs", Resources(gpus=0), "local")
    assert list((tmp_path / "jobs").iterdir()) == []

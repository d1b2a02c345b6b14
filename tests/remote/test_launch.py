"""`launch` from a desktop: start a job on a server, follow it over lost connections, fetch its model."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from meduet_training.commands.launch import app
from meduet_training.remote import events
from meduet_training.remote.events import follow_job
from meduet_training.remote.history import LaunchedJob, list_launched_jobs
from napari_meduet.models.card import read_card
from napari_meduet.models.folders import demo_model_path, installed_models, models_folder

PATIENCE_SECONDS = 60


@pytest.fixture
def launch(home, server_program, tmp_path) -> Callable[..., Result]:
    """Run `meduet-pretrain launch`, with the server's program and folder of jobs unless they are known."""

    def call(*words: str, elsewhere: bool = True) -> Result:
        there = ("--program", server_program, "--jobs", str(tmp_path / "jobs there")) if elsewhere else ()
        return CliRunner().invoke(app, [*map(str, words), *there])

    return call


def configuration(folder: Path, steps: int, hold: int | None = None) -> Path:
    path = folder / f"toy-{steps}.yaml"
    path.write_text("preset: tiny\n" + (f"hold: {hold}\n" if hold else ""))
    return path


def launched_job(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return re.match(r"(\S+) on server", result.output)[1]


def test_one_command_trains_on_the_server_and_fetches_the_model(launch, tmp_path):
    result = launch("--host", "server", configuration(tmp_path, 3), "--gpus", "0", "--executor", "local")
    job = launched_job(result)
    assert [line for line in result.output.splitlines() if line.startswith("step")] == [
        "step 1",
        "step 2",
        "step 3",
    ]
    assert f"{job}: finished, after step 2" in result.output
    assert installed_models() == [(read_card(demo_model_path()).name, models_folder() / job)]
    assert not list((tmp_path / "home").glob(".meduet-launch*")), (
        "the configuration is only in the job's folder"
    )
    assert sorted(path.name for path in models_folder().iterdir()) == [job]


def test_a_detached_job_is_found_by_its_name_cancelled_and_its_model_fetched(launch, tmp_path):
    result = launch(
        "--host", "server", configuration(tmp_path, 500), "--gpus=0", "--executor=local", "--detach"
    )
    job = launched_job(result)
    assert [launched.job for launched in list_launched_jobs()] == [job]
    assert launch("list", elsewhere=False).output == f"{job} on server\n"
    wait_for_step(lambda: launch("status", job, "--json", elsewhere=False), 1)
    cancelled = launch("cancel", job, elsewhere=False)
    assert cancelled.exit_code == 0, cancelled.output
    over = launch("follow", job, elsewhere=False)
    assert over.exit_code == 1
    assert f"{job}: cancelled" in over.output
    assert launch("fetch", job, elsewhere=False).exit_code == 0
    again = launch("fetch", job, elsewhere=False)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert launch("fetch", job, "--overwrite", elsewhere=False).exit_code == 0


def wait_for_step(ask: Callable[[], Result], step: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (json.loads(ask().output)["metrics"] or {}).get("step", -1) < step:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_following_continues_after_a_lost_connection(launch, sshd, tmp_path, monkeypatch):
    monkeypatch.setattr(events, "FIRST_PAUSE_SECONDS", 0.1)
    config = configuration(tmp_path, 12, hold=6)
    job = launched_job(launch("--host", "server", config, "--gpus=0", "--executor=local", "--detach"))
    folder = tmp_path / "jobs there" / job

    async def listen() -> list[dict]:
        received, lost = [], 0
        async for event in follow_job(list_launched_jobs()[0]):
            received.append(event)
            lost += "lost" in event
            if lost == 0 and event.get("metrics", {}).get("step") == 4:
                sshd.cut_connections()
            if lost == 1 and "status" in event:
                sshd.cut_connections()
            if lost == 2:
                (folder / "go").touch()
        return received

    received = asyncio.run(listen())
    assert sum("lost" in event for event in received) == 2
    assert [event["metrics"]["step"] for event in received if "metrics" in event] == list(range(12))
    lines = [event["log"] for event in received if "log" in event]
    assert lines == (folder / "log").read_text().splitlines()
    assert [event for event in received if "status" in event][-1]["status"]["state"] == "finished"


def test_no_secret_is_stored_on_the_desktop(launch, home, sshd, tmp_path):
    launch("--host", "server", configuration(tmp_path, 1), "--gpus=0", "--executor=local", "--detach")
    key = (sshd.folder / "user").read_text().splitlines()[1]
    kept = [path for path in (home / ".local").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if key in path.read_text()]
    assert set(json.loads(kept[0].read_text())) == set(LaunchedJob.model_fields)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["status", "nothing-there"], "no such job was launched from this machine"),
        (["status", "nothing-there", "--host", "server"], "server: nothing-there: there is no such job"),
        (["--host", "server", "absent.yaml"], "absent.yaml: there is no such file"),
        (["--host", "nowhere.invalid", "toy-1.yaml"], "nowhere.invalid cannot be reached"),
        (
            ["--host", "server", "toy-1.yaml", "--gpus=99", "--executor=local"],
            "--gpus is 99, but this machine has",
        ),
        (["--host", "server", "toy-1.yaml", "--gpus=0", "--executor=local", "--nodes=2"], "only SLURM can"),
    ],
)
def test_an_error_prints_one_line_and_exits_with_2(words, sentence, launch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration(tmp_path, 1)
    result = launch(*words)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert len(result.stderr.splitlines()) == 1
    assert list_launched_jobs() == []


def test_the_check_of_a_connection_prints_the_hardware_of_the_server(launch):
    found = json.loads(launch("check", "--host", "server", "--json").output)
    assert found["meduet"]
    assert found["torch"]
    assert isinstance(found["gpus"], list)
    assert isinstance(found["sbatch"], bool)
    assert found["memory_free_gib"] > 0
    assert "torch: " in launch("check", "--host", "server").output


def test_a_server_that_offers_other_files_is_refused(launch, tmp_path):
    result = launch(
        "--host", "server", configuration(tmp_path, 1), "--gpus=0", "--executor=local", "--detach"
    )
    job = launched_job(result)
    intruder = tmp_path / "jobs there" / job / "model" / job / "evil.pkl"
    intruder.parent.mkdir(parents=True)
    intruder.touch()
    fetched = launch("fetch", job, elsewhere=False)
    assert fetched.exit_code == 2
    assert "'evil.pkl', no file of a model" in fetched.stderr
    assert not models_folder().exists() or not list(models_folder().iterdir())

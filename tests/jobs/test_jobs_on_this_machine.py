"""Real jobs on a plain machine: supervised by submitit, stopped by signals, resumed."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from waiting import wait_for_step, wait_until

from meduet_training.jobs.events import events
from meduet_training.jobs.executors import choose_gpus
from meduet_training.jobs.state import status
from meduet_training.jobs.store import (
    AttemptRecord,
    Job,
    Resources,
    add_attempt,
    create_job_folder,
    list_jobs,
    read_attempts,
    read_job,
    read_job_folder,
    write_job,
)
from meduet_training.jobs.submission import cancel, resume, submit
from napari_meduet.errors import InputError


def test_a_job_runs_to_its_end_and_its_folder_holds_all_files(submit_stand_in, jobs_folder):
    job = submit_stand_in(steps=3)
    found = wait_until(job, lambda found: found.is_over)
    assert (found.state, found.attempts, found.exit_code) == ("finished", 1, 0)
    assert found.metrics == {"step": 2, "total": 1 / 3}
    assert {path.name for path in job.folder.iterdir()} == {
        "job.json", "config.yaml", "attempts.jsonl", "log", "log.jsonl", "checkpoints", "scheduler",
    }  # fmt: skip
    assert (job.folder / "config.yaml").read_text() == "preset: tiny\n"
    assert read_job(jobs_folder, job.job) == job
    assert [listed.job for listed in list_jobs(jobs_folder)] == [job.job]
    assert stat.S_IMODE(job.folder.stat().st_mode) == 0o700, "only its owner may open it"
    assert [path for path in job.folder.rglob("*") if path.suffix in (".pkl", ".pickle")] == []


def test_a_stopped_job_saves_and_continues_automatically(submit_stand_in):
    job = submit_stand_in(steps=15)
    wait_for_step(job, 2)
    os.kill(int(job.scheduler_id), signal.SIGTERM)
    found = wait_until(job, lambda found: found.is_over)
    assert (found.state, found.attempts) == ("finished", 2)
    requeued = read_attempts(job.folder)[1]
    assert (requeued.outcome, requeued.exit_code) == ("requeued", 75)
    step = int(requeued.checkpoint.removeprefix("step-").removesuffix(".safetensors"))
    log = job.log.read_text()
    assert f"rank 0 begins at step {step}\n" in log
    assert log.count("\nstep 15\n") == 1


def test_a_cancelled_job_saves_ends_and_can_be_resumed(submit_stand_in, jobs_folder):
    job = submit_stand_in(steps=15)
    wait_for_step(job, 2)
    cancel(job)
    found = wait_until(job, lambda found: found.is_over)
    assert (found.state, found.exit_code) == ("cancelled", 75)
    with pytest.raises(InputError, match="has already ended"):
        cancel(job)
    job = resume(jobs_folder, job)
    assert status(job).state in ("queued", "running")
    found = wait_until(job, lambda found: found.is_over)
    assert (found.state, found.attempts) == ("finished", 2)
    with pytest.raises(InputError, match="nothing to resume"):
        resume(jobs_folder, job)


def test_a_killed_job_is_lost_and_can_be_resumed(submit_stand_in, jobs_folder):
    job = submit_stand_in(steps=10)
    wait_for_step(job, 2)
    for process in processes_of(job.folder):
        os.kill(process, signal.SIGKILL)
    found = wait_until(job, lambda found: found.is_over)
    assert found.state == "lost"
    assert "jobs resume" in found.reason
    found = wait_until(resume(jobs_folder, job), lambda found: found.is_over)
    assert found.state == "finished"


def test_a_failed_job_reports_its_exit_code(submit_stand_in):
    job = submit_stand_in(steps=2)
    (job.folder / "fail").touch()
    found = wait_until(job, lambda found: found.is_over)
    assert (found.state, found.exit_code) == ("failed", 1)
    assert "Something went wrong." in job.log.read_text()


def test_attempts_without_progress_are_not_repeated_without_end(submit_stand_in):
    job = submit_stand_in(steps=5, seconds=60)  # no step ever ends
    for attempt in range(1, 4):
        wait_until(job, lambda found, attempt=attempt: found.attempts == attempt)
        wait_until(job, lambda found, attempt=attempt: job.log.read_text().count("begins") == attempt)
        os.kill(int(job.scheduler_id), signal.SIGTERM)
    found = wait_until(job, lambda found: found.is_over)
    assert found.state == "failed"
    assert "3 times without a new checkpoint" in found.reason


def test_events_continue_where_a_client_stopped(submit_stand_in):
    job = submit_stand_in(steps=8)
    received = []
    for event in events(job):
        received.append(event)
        if event.get("metrics", {}).get("step") == 3:
            break
    offset = next(event["offset"] for event in reversed(received) if "offset" in event)
    received += events(job, offset, after_step=3)
    assert [event["log"] for event in received if "log" in event] == job.log.read_text().splitlines()
    assert [event["metrics"]["step"] for event in received if "metrics" in event] == list(range(8))
    assert received[-1]["status"]["state"] == "finished"


def test_events_continue_when_a_run_rewrites_its_metrics(submit_stand_in):
    job = submit_stand_in(steps=30)
    seen = []
    for event in events(job):
        if "metrics" not in event:
            continue
        seen.append(event["metrics"]["step"])
        if len(seen) == 3:
            anew = job.folder / "anew"
            anew.write_text("".join((job.folder / "log.jsonl").read_text().splitlines(keepends=True)[:2]))
            anew.replace(job.folder / "log.jsonl")
    assert seen == sorted(set(seen))
    assert seen[-1] == 29


def test_the_ranks_of_a_machine_know_their_numbers_and_stop_together(tmp_path, submit_stand_in, monkeypatch):
    give_gpus(tmp_path, monkeypatch, "0, A, 1000, 2000", "1, A, 1500, 2000")
    job = submit_stand_in(steps=20, resources=Resources(gpus=2))
    assert set(job.local_gpus) == {0, 1}
    wait_for_step(job, 1)
    cancel(job)
    found = wait_until(job, lambda found: found.is_over)
    assert (found.state, found.exit_code) == ("cancelled", 75)
    assert {line for line in job.log.read_text().splitlines() if "begins" in line} == {
        "rank 0 begins at step 0",
        "rank 1 begins at step 0",
    }


def give_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: str) -> None:
    """Put an `nvidia-smi` that lists these GPUs onto the PATH."""
    driver = folder / "nvidia-smi"
    driver.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(rows) + "\nEND\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_free_gpus_with_most_memory_are_taken_first(tmp_path, monkeypatch):
    give_gpus(tmp_path, monkeypatch, "0, A, 1000, 2000", "1, A, 1900, 2000", "2, A, 1500, 2000")
    assert choose_gpus(2, set()) == (1, 2)
    assert choose_gpus(1, {1}) == (2,)
    with pytest.raises(InputError, match="other jobs use 2 of the 3 GPUs"):
        choose_gpus(2, {0, 1})
    with pytest.raises(InputError, match="this machine has 3"):
        choose_gpus(4, set())


@pytest.mark.parametrize(
    ("resources", "executor", "sentence"),
    [
        ({"gpus": 99}, "local", "this machine has"),
        ({"gpus": -1}, "local", "--gpus 0 or more"),
        ({"gpus": 0, "nodes": 2}, "local", "--nodes: only SLURM"),
        ({"gpus": 0, "hours": 2, "partition": "a"}, "local", "--hours and --partition: only SLURM"),
        ({"gpus": 0, "hours": -1}, "slurm", "must be positive"),
        ({"gpus": 0, "sbatch": {"output": "x"}}, "slurm", "--sbatch output: the jobs set this"),
    ],
)
def test_resources_that_are_not_available_are_refused_and_leave_no_folder(
    resources, executor, sentence, jobs_folder, tmp_path, monkeypatch
):
    give_command(tmp_path, monkeypatch, "sbatch")
    (tmp_path / "toy.yaml").touch()
    with pytest.raises(InputError, match=sentence):
        submit(tmp_path / "toy.yaml", jobs_folder, Resources(**resources), executor)
    assert not jobs_folder.exists() or not list(jobs_folder.iterdir())


def give_command(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_without_sbatch_slurm_is_refused_with_advice(jobs_folder, tmp_path, monkeypatch):
    (tmp_path / "toy.yaml").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no sbatch.*--executor local"):
        submit(tmp_path / "toy.yaml", jobs_folder, Resources(gpus=0), "slurm")


def test_the_submission_returns_at_once_and_keeps_no_stream_open(submit_stand_in, jobs_folder, tmp_path):
    """An SSH session ends only when no process uses its streams any more."""
    (tmp_path / "toy.yaml").touch()
    script = (
        "import sys; from pathlib import Path; from meduet_training.jobs.store import Resources;"
        "from meduet_training.jobs.submission import submit;"
        f"submit(Path({str(tmp_path / 'toy.yaml')!r}), Path({str(jobs_folder)!r}), Resources(gpus=0),"
        "'local', command=lambda *_: ('sleep', '30'))"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=20)
    (job,) = list_jobs(jobs_folder)
    wait_until(job, lambda found: found.state == "running")
    assert time.monotonic() - began < 20
    for process in processes_of(job.folder):
        os.kill(process, signal.SIGKILL)


def test_a_submission_killed_while_it_creates_the_folder_leaves_no_job(jobs_folder, tmp_path, monkeypatch):
    kill_submission_at("meduet_training.jobs.store.Path.rename", tmp_path, jobs_folder, monkeypatch)
    (left,) = jobs_folder.iterdir()
    assert list_jobs(jobs_folder) == []
    os.utime(left, (0, 0))  # long ago
    job = submit_nothing(tmp_path, jobs_folder)
    assert list(jobs_folder.iterdir()) == [job.folder]
    assert wait_until(job, lambda found: found.is_over).state == "finished"


def test_a_job_whose_submission_was_killed_before_its_start_is_lost(jobs_folder, tmp_path, monkeypatch):
    place = "meduet_training.jobs.submission._submit_and_store_id"
    kill_submission_at(place, tmp_path, jobs_folder, monkeypatch)
    (job,) = list_jobs(jobs_folder)
    assert status(job).state == "lost"
    job = resume(jobs_folder, job)
    assert wait_until(job, lambda found: found.is_over).state == "finished"


def kill_submission_at(place: str, folder: Path, jobs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submit in a process that is killed when it calls the function `place`."""
    (folder / "toy.yaml").touch()
    process = os.fork()
    if not process:
        try:
            monkeypatch.setattr(place, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            submit_nothing(folder, jobs_folder)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def submit_nothing(folder: Path, jobs_folder: Path) -> Job:
    return submit(folder / "toy.yaml", jobs_folder, Resources(gpus=0), "local", command=lambda *_: ("true",))


def test_a_job_whose_number_was_not_stored_is_found_and_can_be_cancelled(submit_stand_in):
    """The submission was killed after the job had been submitted to its executor."""
    job = submit_stand_in(steps=1000)
    write_job(job.model_copy(update={"scheduler_id": None}))
    job = read_job_folder(job.folder)
    wait_for_step(job, 1)
    cancel(job)
    assert wait_until(job, lambda found: found.is_over).state == "cancelled"


def processes_of(folder: Path) -> list[int]:
    """Return the ids of the job's processes and of their children, parents first."""
    processes = [process.info for process in psutil.process_iter(["pid", "ppid", "cmdline"])]
    found = {info["pid"] for info in processes if str(folder) in " ".join(info["cmdline"] or [])}
    found |= {info["pid"] for info in processes if info["ppid"] in found}
    return sorted(found)


def past_job(jobs_folder: Path) -> Job:
    """Return a job of which only the folder is left."""
    jobs_folder.mkdir()
    folder = jobs_folder / "past"
    job = Job(
        job="past", folder=folder, directory=folder, executor="local", scheduler_id="0",
        submitted="2026-01-01", submitted_from="here", resources=Resources(gpus=0), command=("true",),
    )  # fmt: skip
    create_job_folder(job, b"")
    return job


def test_a_job_that_never_started_shows_the_last_line_of_its_log(jobs_folder):
    job = past_job(jobs_folder)
    (job.folder / "scheduler").mkdir()
    (job.folder / "scheduler" / "9_0_log.out").write_text("No such interpreter.\n\n")
    found = status(job)
    assert found.state == "lost"
    assert "No such interpreter." in found.reason


def test_damaged_rows_and_files_do_not_hide_the_others(jobs_folder):
    job = past_job(jobs_folder)
    add_attempt(job.folder, AttemptRecord(time="now", host="here", outcome="finished", exit_code=0))
    with (job.folder / "attempts.jsonl").open("a") as file:
        file.write('{"time": "2026')
    (job.folder / "log.jsonl").write_text('{"step": 1}\n{"st')
    (jobs_folder / "other").mkdir()
    (jobs_folder / "other" / "job.json").write_text(json.dumps({"job": "other"}))
    assert [listed.job for listed in list_jobs(jobs_folder)] == [job.job]
    found = status(job)
    assert (found.state, found.metrics["step"]) == ("finished", 1)
    with pytest.raises(InputError, match="no such job"):
        read_job(jobs_folder, "../" + job.job)
    with pytest.raises(InputError, match="not the description of a job"):
        read_job(jobs_folder, "other")

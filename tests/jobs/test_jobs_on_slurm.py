"""Jobs on a real SLURM of one node: submitted, followed, preempted and requeued, cancelled."""

import subprocess

import pytest
from waiting import wait_for_step, wait_until

from meduet_training.jobs.following import events
from meduet_training.jobs.record import Resources, read_attempts
from meduet_training.jobs.state import State, statuses
from meduet_training.jobs.submitting import Executor, cancel, submit
from napari_meduet.errors import InputError

URGENT = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"]

pytestmark = pytest.mark.usefixtures("slurm")


def test_a_preempted_job_saves_is_requeued_and_finishes_while_somebody_follows(submit_stand_in):
    job = submit_stand_in(steps=20, executor=Executor.slurm, resources=Resources(gpus=2, hours=1))
    heard = []
    for event in events(job):
        heard.append(event)
        if event.get("metrics", {}).get("step") == 2:
            subprocess.run(URGENT, check=True)
    assert heard[-1]["status"]["state"] == "finished"
    assert heard[-1]["status"]["attempts"] == 2
    assert [event["metrics"]["step"] for event in heard if "metrics" in event] == list(range(20))
    requeued = read_attempts(job.folder)[1]
    assert (requeued.outcome, requeued.exit_code) == ("requeued", 75)
    step = int(requeued.checkpoint.removeprefix("step-").removesuffix(".safetensors"))
    log = "".join(event["log"] for event in heard if "log" in event)  # srun lets lines of ranks run together
    assert all(f"rank {rank} begins at step {step}" in log for rank in (0, 1))
    assert [path for path in job.folder.rglob("*") if path.suffix in (".pkl", ".pickle")] == []


def test_jobs_wait_their_turn_are_listed_and_cancelled(submit_stand_in):
    whole_node = Resources(gpus=0, sbatch={"exclusive": "user", "cpus-per-task": "2"})
    running = submit_stand_in(steps=1000, executor=Executor.slurm, resources=whole_node)
    waiting = submit_stand_in(steps=1000, executor=Executor.slurm, resources=whole_node)
    wait_for_step(running, 1)
    assert [found.state for found in statuses([running, waiting])] == [State.running, State.queued]
    assert cancel(waiting).state is State.cancelled
    cancel(running)
    found = wait_until(running, lambda found: found.state.is_over)
    assert (found.state, found.exit_code, found.attempts) == (State.cancelled, 75, 1)


def test_the_signal_before_the_time_limit_saves_and_requeues(submit_stand_in):
    job = submit_stand_in(steps=15, executor=Executor.slurm)
    wait_for_step(job, 1)
    subprocess.run(["scancel", "--signal=USR1", job.scheduler_id], check=True)
    found = wait_until(job, lambda found: found.state.is_over)
    assert (found.state, found.attempts) == (State.finished, 2)


def test_what_slurm_refuses_is_told_in_its_words_and_leaves_nothing(jobs_folder, tmp_path):
    (tmp_path / "toy.yaml").touch()
    ignore_stage = Resources(gpus=0, partition="nowhere")
    with pytest.raises(InputError, match="Invalid partition"):
        submit(tmp_path / "toy.yaml", jobs_folder, ignore_stage, Executor.slurm, command=lambda *_: ("true",))
    assert list(jobs_folder.iterdir()) == []

"""Jobs on a real SLURM cluster with one node: submitted, followed, preempted and requeued, cancelled."""

import subprocess

import pytest
from waiting import wait_for_step, wait_until

from meduet_training.jobs.events import events
from meduet_training.jobs.state import statuses
from meduet_training.jobs.store import Resources, read_attempts
from meduet_training.jobs.submission import cancel, submit
from napari_meduet.errors import InputError

URGENT = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"]

pytestmark = pytest.mark.usefixtures("slurm")


def test_a_preempted_job_saves_is_requeued_and_finishes_while_a_client_follows(submit_stand_in):
    job = submit_stand_in(steps=20, executor="slurm", resources=Resources(gpus=2, hours=1))
    received = []
    for event in events(job):
        received.append(event)
        if event.get("metrics", {}).get("step") == 2:
            subprocess.run(URGENT, check=True)
    assert received[-1]["status"]["state"] == "finished"
    assert received[-1]["status"]["attempts"] == 2
    assert [event["metrics"]["step"] for event in received if "metrics" in event] == list(range(20))
    requeued = read_attempts(job.folder)[1]
    assert (requeued.outcome, requeued.exit_code) == ("requeued", 75)
    step = int(requeued.checkpoint.removeprefix("step-").removesuffix(".safetensors"))
    log = "".join(event["log"] for event in received if "log" in event)  # srun may join lines of ranks
    assert all(f"rank {rank} begins at step {step}" in log for rank in (0, 1))
    assert [path for path in job.folder.rglob("*") if path.suffix in (".pkl", ".pickle")] == []


def test_jobs_are_queued_listed_and_cancelled(submit_stand_in):
    whole_node = Resources(gpus=0, sbatch={"exclusive": "user", "cpus-per-task": "2"})
    running = submit_stand_in(steps=1000, executor="slurm", resources=whole_node)
    waiting = submit_stand_in(steps=1000, executor="slurm", resources=whole_node)
    wait_for_step(running, 1)
    assert [found.state for found in statuses([running, waiting])] == ["running", "queued"]
    assert cancel(waiting).state == "cancelled"
    cancel(running)
    found = wait_until(running, lambda found: found.is_over)
    assert (found.state, found.exit_code, found.attempts) == ("cancelled", 75, 1)


def test_the_signal_before_the_time_limit_saves_and_requeues(submit_stand_in):
    job = submit_stand_in(steps=15, executor="slurm")
    wait_for_step(job, 1)
    subprocess.run(["scancel", "--signal=USR1", job.scheduler_id], check=True)
    found = wait_until(job, lambda found: found.is_over)
    assert (found.state, found.attempts) == ("finished", 2)


def test_an_error_of_slurm_is_reported_and_leaves_no_folder(jobs_folder, tmp_path):
    (tmp_path / "toy.yaml").touch()
    resources = Resources(gpus=0, partition="nowhere")
    with pytest.raises(InputError, match="Invalid partition"):
        submit(tmp_path / "toy.yaml", jobs_folder, resources, "slurm", command=lambda *_: ("true",))
    assert list(jobs_folder.iterdir()) == []

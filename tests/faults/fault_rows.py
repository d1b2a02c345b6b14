"""The rows of the fault list: each makes its fault and checks what follows.

T12 to T14 are of the latent cache and have their tests beside it; T20 is in scripts/soak.py, which repeats
all of these.
"""

import ctypes
import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import torch
from fault_jobs import Attempt, Job, send
from test_checkpoints import DAMAGE, truncate

from meduet_training.engine.checkpoints import FOLDER, checkpoint_paths, newest_checkpoint
from meduet_training.runtime.locks import LOCK
from meduet_training.runtime.shared_memory import SHARED_MEMORY
from napari_meduet.core.objective import ObjectiveConfig

RESUMABLE = "75"
NEW_MOUNTS = 0x00020000  # CLONE_NEWNS of unshare(2)


@cache
def faultless(steps: int, ranks: int, batch: int, accumulate: int) -> tuple[str, dict[int, str]]:
    """Digest and losses of the same run without a fault."""
    job = Job(folder=Path(mkdtemp()) / "run", steps=steps, ranks=ranks, batch=batch, accumulate=accumulate)
    with running(job) as attempt:
        assert attempt.end() == ["0"] * ranks, attempt.said
    return job.digest(), job.losses


@contextmanager
def running(job: Job) -> Iterator[Attempt]:
    attempt = job.start()
    try:
        yield attempt
    finally:
        attempt.clean_up()


def finish(job: Job) -> None:
    """Go on to the end, by the same command, and find what a run without faults finds."""
    with running(replace(job, pace_s=0.0, disturb=None)) as attempt:
        assert attempt.end() == ["0"] * job.ranks, attempt.said
    digest, losses = faultless(job.steps, job.ranks, job.batch, job.accumulate)
    assert job.digest() == digest
    assert job.losses == losses
    assert [path.name for path in job.folder.rglob(".*")] == []
    assert not (job.folder / LOCK).exists()


def check_newest(job: Job) -> int:
    """The newest checkpoint is whole, and no more than one interval was lost; its step."""
    said: list[str] = []
    newest = newest_checkpoint(job.folder, said.append)
    assert said == []
    step = newest.step if newest else 0
    assert max(job.losses, default=-1) + 1 - step <= job.checkpoint_every
    return step


def t1_all_killed(folder: Path, chance: Random, kills: int = 2) -> None:
    job = Job(folder=folder, steps=max(40, 12 * kills), pace_s=0.02, checkpoint_every=3)
    for _ in range(kills):
        with running(job) as attempt:
            attempt.wait_for_steps(1 + chance.randrange(8))
            time.sleep(chance.uniform(0.0, 0.05))
            attempt.kill()
        check_newest(job)
    finish(job)


def t2_one_killed(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, steps=100_000, pace_s=0.05)
    with running(job) as attempt:
        attempt.wait_for_steps(25)
        victim = attempt.pids[1]
        send(victim, signal.SIGKILL)
        attempt.end(within_s=15)
        assert attempt.process.exitcode != 0
        assert f"Rank 1 (process {victim} on {socket.gethostname()}) was killed at step" in attempt.said
    check_newest(job)


def t3_one_stopped(folder: Path, chance: Random, timeout_s: float = 4.0) -> None:
    job = Job(folder=folder, steps=100_000, pace_s=0.05, timeout_s=timeout_s)
    with running(job) as attempt:
        attempt.wait_for_steps(25)
        stopped = attempt.pids[1]
        send(stopped, signal.SIGSTOP)
        attempt.end(within_s=timeout_s + 35)
        assert f"Rank 1 (process {stopped} on" in attempt.said
        assert "hangs: it has been silent for" in attempt.said
        assert "last seen at step" in attempt.said
    check_newest(job)


def t4_launcher_killed(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, steps=100_000, pace_s=0.05)
    with running(job) as attempt:
        attempt.wait_for_steps(5)
        send(attempt.process.pid, signal.SIGKILL)
        assert attempt.end(within_s=15) == [RESUMABLE, RESUMABLE]
        assert "The launcher of this process is gone" in attempt.said
    assert check_newest(job) == max(job.losses) + 1


def t5_asked_to_stop(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, steps=40, pace_s=0.05, checkpoint_every=1000)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        with running(job) as attempt:
            attempt.wait_for_steps(2 + chance.randrange(8))
            if number == signal.SIGTERM:
                send(attempt.process.pid, number)
            else:  # to one rank alone: all stop together
                send(attempt.pids[chance.randrange(2)], number)
            assert attempt.end(within_s=25) == [RESUMABLE, RESUMABLE], attempt.said
        assert check_newest(job) == max(job.losses) + 1
    finish(job)


def t6_asked_twice(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, steps=100_000, pace_s=0.01, checkpoint_every=1)
    with running(job) as attempt:
        attempt.wait_for_steps(2 + chance.randrange(8))
        for _ in range(2):
            time.sleep(chance.uniform(0.0, 0.02))
            for pid in attempt.pids:
                send(pid, signal.SIGTERM)
        assert attempt.end(within_s=25) == [RESUMABLE, RESUMABLE], attempt.said
    assert check_newest(job) == max(job.losses) + 1


def stop_while_reading(call: int) -> Callable[[Job, int, dict[str, Any]], None]:
    """SIGTERM comes to the first rank while it reads for the so-many-th time."""

    def disturb(job: Job, rank: int, given: dict[str, Any]) -> None:
        read, calls = given["source"].read, []

        def reading(choices: Any) -> Any:
            calls.append(None)
            if rank == 0 and len(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return read(choices)

        given["source"].read = reading

    return disturb


def t7_resumed(folder: Path, chance: Random, points: tuple[int, ...] = (1, 4), ranks: int = 2) -> None:
    """Stopped in the first step and just after distillation began (step 4 of 8), both times in the second of
    two parts of a batch."""
    job = Job(folder=folder, steps=8, ranks=ranks, batch=8, accumulate=2, checkpoint_every=100)
    for steps in points:  # taken by this attempt
        with running(replace(job, disturb=stop_while_reading(2 * steps))) as attempt:
            assert attempt.end() == [RESUMABLE] * ranks, attempt.said
    assert check_newest(job) == sum(points)
    finish(job)


def t8_other_run(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, steps=4)
    with running(job) as attempt:
        assert attempt.end() == ["0", "0"]
    before = job.digest()
    for other, sentence in (
        (replace(job, ranks=1), "2 processes x 1 parts and goes on with 1 processes x 1 parts"),
        (replace(job, ranks=1, batch=8), "holds a run with other settings (batch)"),
        (replace(job, ranks=1, steps=5), "holds a run with other settings (objective.total_steps)"),
    ):
        with running(other) as attempt:
            assert attempt.end() == ["2" if "other settings" in sentence else "0"]
            assert sentence in attempt.said
    assert job.digest() == before


def poison(first: int, last: int) -> Callable[[Job, int, dict[str, Any]], None]:
    """What the second rank reads for these steps is NaN."""

    def disturb(job: Job, rank: int, given: dict[str, Any]) -> None:
        read, calls = given["source"].read, []

        def reading(choices: Any) -> Any:
            batch = read(choices)
            if rank == 1 and first <= len(calls) <= last:
                batch["latent"][0, 0] = torch.nan
            calls.append(None)
            return batch

        given["source"].read = reading

    return disturb


def infinite_gradient(job: Job, rank: int, given: dict[str, Any]) -> None:
    """The second rank's gradient is infinite in step 2."""
    build, calls = ObjectiveConfig.build, []

    def grow(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return gradient * torch.inf if len(calls) == 3 else gradient

    def with_hook(self: ObjectiveConfig, network: Any) -> Any:
        objective = build(self, network)
        objective.student.encoder.patch_embedding.weight.register_hook(grow)
        return objective

    if rank == 1:
        ObjectiveConfig.build = with_hook  # type: ignore[method-assign]


def t9_not_finite(folder: Path, chance: Random) -> None:
    for name, disturb in (("nan", poison(2, 2)), ("inf", infinite_gradient), ("for ever", poison(2, 99))):
        job = Job(folder=folder / name, steps=6, disturb=disturb)
        with running(job) as attempt:
            expected = ["3", "3"] if name == "for ever" else ["0", "0"]
            assert attempt.end() == expected, attempt.said
            assert "Step 2 was skipped" in attempt.said
            assert "Scans: " in attempt.said
        assert max(job.losses) == (1 if name == "for ever" else 5)
        assert 2 not in job.losses
        newest = newest_checkpoint(job.folder)
        assert newest.step == (2 if name == "for ever" else 6)
        assert all(value.isfinite().all() for value in newest.under("objective.").values())


def t10_damaged(
    folder: Path, chance: Random, damages: tuple[Callable[[Path], None], ...] = (truncate,)
) -> None:
    job = Job(folder=folder, steps=12, ranks=1)
    with running(job) as attempt:
        assert attempt.end() == ["0"]
    for damage in damages:
        first, *_, newest = checkpoint_paths(folder)
        if damage.__name__ == "put_another_in_its_place":
            newest.write_bytes(first.read_bytes())
        else:
            damage(newest)
        with running(job) as attempt:
            assert attempt.end() == ["0"], attempt.said
            assert f"{newest.name}: " in attempt.said
            assert "Using step-00000008.safetensors, the one before." in attempt.said
    checkpoint_paths(folder)[-1].unlink()  # missing
    finish(job)


ALL_DAMAGE = tuple(damage for damage in DAMAGE if damage.__name__ != "forbid_reading")


def mount(folder: Path, options: str) -> bool:
    """A small file system in memory, where this user may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", folder]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def t11_disk_full(folder: Path, chance: Random) -> None:
    if not mount(folder, "size=2m"):
        return
    try:
        job = Job(folder=folder / "run", steps=12, ranks=1, checkpoint_every=1)
        job.notes.symlink_to(mkdtemp(), target_is_directory=True)
        with running(job) as attempt:
            assert attempt.end() == ["2"], attempt.said
            assert f"{job.folder / FOLDER}: the disk is full; a checkpoint needs" in attempt.said
            assert "MB are free" in attempt.said
        check_newest(job)
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
        finish(job)
    finally:
        subprocess.run(["umount", folder], check=True)


def t15_worker_killed(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, steps=100_000, ranks=1, workers=1, pace_s=0.05)
    with running(job) as attempt:
        attempt.wait_for_steps(3)
        pid = attempt.pids[0]
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert workers
        for worker in workers:
            send(int(worker), signal.SIGKILL)
        assert attempt.end(within_s=5) == ["1"]
        assert "A process that reads data died" in attempt.said, attempt.said
        assert "Traceback" not in attempt.said
    check_newest(job)


def fail_reading(times: int) -> Callable[[Job, int, dict[str, Any]], None]:
    def disturb(job: Job, rank: int, given: dict[str, Any]) -> None:
        read, calls = given["source"].read, []

        def reading(choices: Any) -> Any:
            calls.append(None)
            if 3 <= len(calls) < 3 + times:
                raise OSError(errno.EIO, "Input/output error", "shard-3")
            return read(choices)

        given["source"].read = reading

    return disturb


def t16_storage_fails(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, ranks=1)
    with running(replace(job, disturb=fail_reading(1))) as attempt:
        assert attempt.end() == ["0"], attempt.said
    finish(job)
    job = Job(folder=folder / "for-ever", ranks=1, disturb=fail_reading(99))
    with running(job) as attempt:
        assert attempt.end() == ["2"]
        assert "shard-3: cannot be read (Input/output error), tried several times" in attempt.said
        assert "Traceback" not in attempt.said


def turn_back_the_clock(job: Job, rank: int, given: dict[str, Any]) -> None:
    """A day back at the third step, and another time zone."""
    read, calls, usual = given["source"].read, [], time.time

    def reading(choices: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            time.time = lambda: usual() - 86_400
            os.environ["TZ"] = "Pacific/Kiritimati"
            time.tzset()
        return read(choices)

    given["source"].read = reading


def fill_shared_memory(job: Job, rank: int, given: dict[str, Any]) -> None:
    """A /dev/shm of 64 kB, for this process and those it starts."""
    assert ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", SHARED_MEMORY], check=True)


def t17_surroundings(folder: Path, chance: Random) -> None:
    job = Job(folder=folder / "clock", ranks=1)
    with running(replace(job, disturb=turn_back_the_clock)) as attempt:
        assert attempt.end() == ["0"], attempt.said
    finish(job)
    if not mount(folder / "disk", "size=1m,ro"):
        return
    try:
        job = Job(folder=folder / "disk" / "run", ranks=1)
        job = replace(job, folder=folder / "read-only")
        job.folder.symlink_to(folder / "disk", target_is_directory=True)
        with running(job) as attempt:
            assert attempt.end() == ["2"]
            assert "this folder is not writable (Read-only file system)" in attempt.said
        assert job.losses == {}
    finally:
        subprocess.run(["umount", folder / "disk"], check=True)
    job = Job(folder=folder / "shared-memory", ranks=1, workers=1, disturb=fill_shared_memory)
    with running(job) as attempt:
        assert attempt.end() == ["2"], attempt.said
        assert f"{SHARED_MEMORY} has 0.1 MB free" in attempt.said
    assert job.losses == {}


def t18_shared_folder(folder: Path, chance: Random) -> None:
    job = Job(folder=folder, steps=100_000, ranks=1, pace_s=0.05)
    with running(job) as attempt:
        attempt.wait_for_steps(1)
        other = replace(job, folder=folder.with_name(f"{folder.name}-other"))
        other.folder.symlink_to(folder, target_is_directory=True)
        with running(other) as second:
            assert second.end() == ["2"]
            assert (
                f"process {attempt.pids[0]} on {socket.gethostname()} is training in this folder"
                in second.said
            )
        assert attempt.process.is_alive()


def t19_no_meeting(folder: Path, chance: Random, patience_s: float = 2.0) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        for rank, address, sentence in (
            ("0", "127.0.0.1", f"Port {taken} of this machine is in use"),
            (
                "1",
                "no-such-host.invalid",
                f"Rank 1 got no answer from no-such-host.invalid:{taken} within {patience_s:.0f} s",
            ),
        ):
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            environment |= {"MASTER_ADDR": address, "MASTER_PORT": taken}
            job = Job(
                folder=folder / rank, ranks=1, environment=tuple(environment.items()), timeout_s=patience_s
            )
            with running(job) as attempt:
                attempt.end(within_s=60)
                assert job.note(f"exit-{rank}") == "2"
                assert sentence in attempt.said


Row = Callable[[Path, Random], None]
ROWS: dict[str, Row] = {
    "T1": t1_all_killed, "T2": t2_one_killed, "T3": t3_one_stopped, "T4": t4_launcher_killed,
    "T5": t5_asked_to_stop, "T6": t6_asked_twice, "T7": t7_resumed, "T8": t8_other_run, "T9": t9_not_finite,
    "T10": t10_damaged, "T11": t11_disk_full, "T15": t15_worker_killed, "T16": t16_storage_fails,
    "T17": t17_surroundings, "T18": t18_shared_folder, "T19": t19_no_meeting,
}  # fmt: skip

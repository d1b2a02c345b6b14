"""The fault list, repeated: real processes and signals, then a long run with random faults.

    python scripts/soak.py [--share 0.2] [--rows T1 T5 ...] [--seed 0]

Prints a line for each row: how often it ran, how often it passed, the seconds of the slowest. `--share` takes
that share of the repeats. Exit code 1 if any failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "training"), str(TESTS / "faults")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fault_rows as rows  # noqa: E402
import torchrun_row  # noqa: E402
from fault_jobs import Job, send  # noqa: E402

from meduet_training.runtime.rendezvous import PATIENCE_S  # noqa: E402

Repeat = Callable[[Path, Random], None]
LATENT_CACHE = ("test_cache_reading.py", "test_cache_writing.py")
GROWTH = 1.05  # of the first process's memory


def repeats(share: float) -> dict[str, tuple[int, Repeat]]:
    """How often each row is repeated, and what one repeat does."""

    def times(count: int) -> int:
        return max(1, round(count * share))

    return {
        # one run that is killed again and again
        "T1": (1, partial(rows.t1_all_killed, kills=times(50))),
        "T2": (times(10), rows.t2_one_killed),
        "T3": (times(3), partial(rows.t3_one_stopped, timeout_s=20.0)),
        "T4": (times(5), rows.t4_launcher_killed),
        "T5": (times(10), rows.t5_asked_to_stop),
        "T5 by torchrun": (1, torchrun_row.asked_to_stop),
        "T6": (times(10), rows.t6_asked_twice),
        "T7": (1, resumed_everywhere),
        "T8": (1, rows.t8_other_run),
        "T9": (times(2), rows.t9_not_finite),
        "T10": (1, partial(rows.t10_damaged, damages=rows.ALL_DAMAGE)),
        "T11": (times(4), rows.t11_disk_full),
        "T12-T14": (1, latent_cache),
        "T15": (times(5), rows.t15_worker_killed),
        "T16": (times(3), rows.t16_storage_fails),
        "T17": (1, rows.t17_surroundings),
        "T18": (1, rows.t18_shared_folder),
        "T19": (1, partial(rows.t19_no_meeting, patience_s=PATIENCE_S)),
        "T20": (1, partial(long_run, steps=times(5000), faults=times(20))),
    }


def resumed_everywhere(folder: Path, chance: Random) -> None:
    """Six points, on one rank and on two: from the first step, over distillation's begin, to the last."""
    for ranks in (1, 2):
        for steps in (1, 2, 4, 5, 6, 7):
            rows.t7_resumed(folder / f"{ranks}-{steps}", chance, points=(steps,), ranks=ranks)


def latent_cache(folder: Path, chance: Random) -> None:
    """The tests of the latent cache's own faults, repeated as MEDUET_SOAK asks them to."""
    command = [sys.executable, "-m", "pytest", "-q", *(str(TESTS / "faults" / name) for name in LATENT_CACHE)]
    done = subprocess.run(  # noqa: S603
        command, env=os.environ | {"MEDUET_SOAK": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def long_run(folder: Path, chance: Random, *, steps: int, faults: int) -> None:
    """A day in small: many steps, random faults, and in the end what a run without faults finds."""
    job = Job(folder=folder, steps=steps, checkpoint_every=50)
    usage: list[tuple[int, int, int]] = []  # of the first process while nothing disturbs it
    for _ in range(faults):
        with rows.running(job) as attempt:
            attempt.wait_for_steps(1 + chance.randrange(max(2, steps // (2 * faults))))
            one = attempt.pids[chance.randrange(2)]
            fault = chance.choice(("kill all", "kill one", "kill launcher", "stop", "warn one"))
            if fault == "kill all":
                attempt.kill()
            elif fault == "kill one":
                send(one, 9)
            elif fault == "kill launcher":
                send(attempt.process.pid, 9)
            else:
                send(attempt.process.pid if fault == "stop" else one, 15 if fault == "stop" else 10)
            attempt.end()
        rows.check_newest(job)
    ended = threading.Event()
    with rows.running(replace(job, timeout_s=600.0)) as attempt:
        attempt.wait_for_steps(20)
        watch = threading.Thread(target=_watch, args=(attempt.pids[0], usage, ended))
        watch.start()
        assert attempt.end(within_s=7200.0) == ["0", "0"], attempt.said[-2000:]
        ended.set()
        watch.join()
    rows.finish(job)
    (early, *_), (late, *_) = usage[len(usage) // 10], usage[-1]
    print(
        f"memory {early} kB, at the end {late} kB; files and threads {usage[0][1:]}, {usage[-1][1:]}",
        file=sys.stderr,
    )
    assert late <= GROWTH * early
    assert usage[-1][1] <= usage[len(usage) // 10][1]
    assert usage[-1][2] <= usage[len(usage) // 10][2]


def _watch(pid: int, usage: list[tuple[int, int, int]], ended: threading.Event) -> None:
    """Memory in kB, open files and threads of a process, twice a second."""
    process = Path(f"/proc/{pid}")
    while not ended.wait(0.5):
        try:
            words = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            memory = int(words["VmRSS"].split()[0])
            usage.append((memory, len(list((process / "fd").iterdir())), int(words["Threads"])))
        except (OSError, KeyError):
            return


def main() -> int:
    """Run the rows and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--share", type=float, default=1.0, help="of the repeats")
    options.add_argument("--rows", nargs="*", help="only these")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    chance = Random(chosen.seed)  # noqa: S311
    failed = False
    print("| row | repeats | passed | slowest, s |\n|---|---|---|---|", flush=True)
    for name, (count, repeat) in repeats(chosen.share).items():
        if chosen.rows and name not in chosen.rows:
            continue
        passed, slowest = 0, 0.0
        for number in range(count):
            folder = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
            began = time.monotonic()
            try:
                repeat(folder / str(number), chance)
                passed += 1
                shutil.rmtree(folder, ignore_errors=True)
            except Exception:  # the table goes on; what failed is kept
                print(
                    f"{name} failed, its folder is {folder.name}:\n{traceback.format_exc()}", file=sys.stderr
                )
            slowest = max(slowest, time.monotonic() - began)
        failed = failed or passed < count
        print(f"| {name} | {count} | {passed} | {slowest:.1f} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

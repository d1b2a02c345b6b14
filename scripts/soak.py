"""Repeat the faults of docs/reliability.md with real processes and signals, and run a long training.

    python scripts/soak.py [--fraction 0.2] [--rows T1 T5 ...] [--seed 0]

The script prints a line for each row of the fault list: the repeats, how many passed, and the seconds of the
slowest. `--fraction` runs only a part of the repeats. The exit code is 1 if a repeat failed.
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
import psutil  # noqa: E402
import torchrun_row  # noqa: E402
from fault_jobs import Job, send  # noqa: E402

from meduet_training.runtime.rendezvous import TIMEOUT_S  # noqa: E402

Repeat = Callable[[Path, Random], None]
LATENT_CACHE = ("test_cache_reading.py", "test_cache_writing.py")
MAX_GROWTH = 1.05  # of the memory of rank 0, from a tenth of the run to its end


def repeats(fraction: float) -> dict[str, tuple[int, Repeat]]:
    """Return the number of repeats of each row, and the function of one repeat."""

    def times(count: int) -> int:
        return max(1, round(count * fraction))

    return {
        "T1": (1, partial(rows.t1_all_killed, kills=times(50))),  # one run that is killed repeatedly
        "T2": (times(10), rows.t2_one_killed),
        "T3": (times(3), partial(rows.t3_one_stopped, timeout_s=20.0)),
        "T4": (times(5), rows.t4_launcher_killed),
        "T5": (times(10), rows.t5_asked_to_stop),
        "T5 by torchrun": (1, torchrun_row.asked_to_stop),
        "T6": (times(10), rows.t6_asked_twice),
        "T7": (1, resumed_at_six_points),
        "T8": (1, rows.t8_other_run),
        "T9": (times(2), rows.t9_not_finite),
        "T10": (1, partial(rows.t10_damaged, damages=rows.ALL_DAMAGE)),
        "T11": (times(4), rows.t11_disk_full),
        "T12-T14": (1, latent_cache),
        "T15": (times(5), rows.t15_worker_killed),
        "T16": (times(3), rows.t16_storage_fails),
        "T17": (1, rows.t17_surroundings),
        "T18": (1, rows.t18_shared_folder),
        "T19": (1, partial(rows.t19_no_meeting, patience_s=TIMEOUT_S)),
        "T20": (1, partial(long_run, steps=times(5000), faults=times(20))),
    }


def resumed_at_six_points(folder: Path, chance: Random) -> None:
    """Resume at six points between the first and the last step, on one rank and on two (T7)."""
    for ranks in (1, 2):
        for steps in (1, 2, 4, 5, 6, 7):
            rows.t7_resumed(folder / f"{ranks}-{steps}", chance, points=(steps,), ranks=ranks)


def latent_cache(folder: Path, chance: Random) -> None:
    """Run the tests of the latent cache (T12 to T14), with the repeats that MEDUET_SOAK enables."""
    command = [sys.executable, "-m", "pytest", "-q", *(str(TESTS / "faults" / name) for name in LATENT_CACHE)]
    done = subprocess.run(  # noqa: S603
        command, env=os.environ | {"MEDUET_SOAK": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def long_run(folder: Path, chance: Random, *, steps: int, faults: int) -> None:
    """Run many steps with random faults; the result must equal that of a run without faults (T20)."""
    job = Job(folder=folder, steps=steps, checkpoint_every=50)
    usage: list[tuple[int, int, int]] = []  # of rank 0, in the last attempt, which has no fault
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
        watch = threading.Thread(target=_record_usage, args=(attempt.pids[0], usage, ended))
        watch.start()
        assert attempt.end(within_s=7200.0) == ["0", "0"], attempt.said[-2000:]
        ended.set()
        watch.join()
    rows.finish(job)
    (early, *_), (late, *_) = usage[len(usage) // 10], usage[-1]
    print(
        f"memory {early} kB after a tenth of the run, {late} kB at its end; "
        f"open files and threads {usage[0][1:]} and {usage[-1][1:]}",
        file=sys.stderr,
    )
    assert late <= MAX_GROWTH * early
    assert usage[-1][1] <= usage[len(usage) // 10][1]
    assert usage[-1][2] <= usage[len(usage) // 10][2]


def _record_usage(pid: int, usage: list[tuple[int, int, int]], ended: threading.Event) -> None:
    """Record memory in kB, open files and threads of a process, twice each second."""
    process = psutil.Process(pid)
    while not ended.wait(0.5):
        try:
            usage.append((process.memory_info().rss // 1024, process.num_fds(), process.num_threads()))
        except psutil.Error:
            return


def main() -> int:
    """Run the rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=1.0, help="Fraction of the repeats. Default: 1.")
    parser.add_argument("--rows", nargs="*", help="Rows to run, for example T1 T5. Default: all.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random faults. Default: 0.")
    options = parser.parse_args()
    chance = Random(options.seed)  # noqa: S311
    failed = False
    print("| row | repeats | passed | slowest, s |\n|---|---|---|---|", flush=True)
    for name, (count, repeat) in repeats(options.fraction).items():
        if options.rows and name not in options.rows:
            continue
        passed, slowest = 0, 0.0
        for number in range(count):
            folder = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
            began = time.monotonic()
            try:
                repeat(folder / str(number), chance)
                passed += 1
                shutil.rmtree(folder, ignore_errors=True)
            except Exception:  # the other rows run; the folder of the failed repeat is kept
                print(
                    f"{name} failed. Its folder is {folder.name}:\n{traceback.format_exc()}", file=sys.stderr
                )
            slowest = max(slowest, time.monotonic() - began)
        failed = failed or passed < count
        print(f"| {name} | {count} | {passed} | {slowest:.1f} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

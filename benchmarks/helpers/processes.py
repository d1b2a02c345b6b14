"""Run a contender in a process of its own, and measure its time and its peak memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # unit of `ru_maxrss`


@dataclass(frozen=True)
class ProcessResult:
    """The wall time, the peak memory and the output of a process."""

    seconds: float
    peak_bytes: int
    output: str


def run_process(command: Sequence[str], threads: int) -> ProcessResult:
    """Run a command with a number of threads, and return its measurements.

    Raises:
        SystemExit: the command fails.
    """
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command[:4])} failed")
    return ProcessResult(seconds, usage.ru_maxrss * RSS_UNIT_BYTES, text)

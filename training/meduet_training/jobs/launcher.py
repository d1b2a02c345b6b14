"""Launch the ranks of a training on one machine, and return one exit code for all of them.

This does what `torchrun --standalone` does, but it keeps the exit code of the ranks. torchrun turns every
failure into exit code 1, while exit code 75 means that the training can continue (runtime/signals.py).
On SLURM, srun launches the ranks instead (run_attempt.py).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO

GRACE_SECONDS = 30  # time for the other ranks to save, after one has failed
POLL_SECONDS = 0.1
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def launch_ranks(command: Sequence[str], num_ranks: int, log: IO[bytes]) -> int:
    """Run a command once for each rank, and return one exit code.

    It is the exit code of the first rank that failed, or 0. All ranks receive the signals that this process
    receives.

    Args:
        log: file that receives the output of all ranks.
    """
    environment = dict(os.environ)
    if num_ranks > 1:
        environment |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "NODE_RANK": "0",
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "meduet-job",  # tells torch and Fabric that a launcher started the ranks
        }
    ranks: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for rank in ranks:
            rank.send_signal(number)

    previous_handlers = {number: signal.signal(number, forward) for number in FORWARDED_SIGNALS}
    try:
        for rank in range(num_ranks):
            own = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if num_ranks > 1 else {})
            ranks.append(
                subprocess.Popen(  # noqa: S603 the job's own command
                    command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            )
            for number in received:
                ranks[-1].send_signal(number)
        return _wait(ranks)
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all ranks. After one has failed, the others are killed when the time of grace is over."""
    first_failure, deadline = 0, float("inf")
    while any(rank.poll() is None for rank in ranks):
        for number, rank in enumerate(ranks):
            if rank.returncode and not first_failure:
                first_failure, deadline = rank.returncode, time.monotonic() + GRACE_SECONDS
                if len(ranks) > 1:
                    print(
                        f"Rank {number} ended with exit code {rank.returncode}.", file=sys.stderr, flush=True
                    )
        if time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
        time.sleep(POLL_SECONDS)
    code = first_failure or next((rank.returncode for rank in ranks if rank.returncode), 0)
    return code if code >= 0 else 128 - code  # as a shell reports a signal


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]

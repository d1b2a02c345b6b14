"""The processes of one machine's training, and what became of them as one exit code.

Does what `torchrun --standalone` does and keeps the exit code, which torchrun turns into 1: it tells whether
a training may go on (75).
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

GRACE_SECONDS = 30  # that the others have to save, once one has died
POLL_SECONDS = 0.1
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def run_ranks(command: Sequence[str], count: int, log: IO[bytes]) -> int:
    """Run the command once for each rank; signals that come meanwhile go to all of them.

    Returns the exit code of the first rank that failed; else that of any that did not end with 0; else 0.
    """
    environment = dict(os.environ)
    if count > 1:
        environment |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "NODE_RANK": "0",
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "meduet-job",  # by which torch and Fabric know that ranks were started
        }
    ranks: list[subprocess.Popen[bytes]] = []
    came: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for rank in ranks:
            rank.send_signal(number)

    usual = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        for rank in range(count):
            own = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})
            ranks.append(
                subprocess.Popen(  # noqa: S603 the job's own command
                    command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            )
            for number in came:
                ranks[-1].send_signal(number)
        return _wait(ranks)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all of them; when one fails, the others get a time of grace."""
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

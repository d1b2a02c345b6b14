"""Whether the processes of a job can find each other, asked before torch does: it waits for minutes, and its
message is for its developers.
"""

import errno
import os
import socket
import time
from collections.abc import Mapping

from napari_meduet.errors import InputError

PATIENCE_S = 45.0  # for the first process to be there
PAUSE_S = 0.5


def check_meeting_point(
    address: str,
    port: int,
    rank: int,
    variables: Mapping[str, str] = os.environ,
    patience_s: float = PATIENCE_S,
) -> None:
    """Return when the address of the first process answers, or, in that process, when it can be taken.

    Raises:
        InputError: the port is in use, or nobody answers at the address.
    """
    hosts_it = rank == 0 and variables.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not hosts_it:
        _wait_for_answer(address, port, rank, patience_s)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(
                    f"Rank 0 cannot listen on port {port} ({error.strerror}); set MASTER_PORT to another."
                ) from error
            raise InputError(
                f"Port {port} of this machine is in use, so the processes of this job cannot meet there; set "
                "MASTER_PORT to another, or end the job that holds it."
            ) from error
        server.listen()
        try:
            socket.create_connection((address, port), timeout=PAUSE_S * 10).close()
        except OSError as error:
            raise InputError(
                f"MASTER_ADDR is {address}, but this machine, on which rank 0 runs, cannot be reached under "
                f"it ({error.strerror or error}); set it to this machine's name or address."
            ) from error


def _wait_for_answer(address: str, port: int, rank: int, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            left = max(PAUSE_S, deadline - time.monotonic())
            socket.create_connection((address, port), timeout=left).close()
            return
        except OSError as error:
            if time.monotonic() + PAUSE_S > deadline:
                raise InputError(
                    f"Rank {rank} reached nobody at {address}:{port} within {patience_s:.0f} s "
                    f"({error.strerror or error}); check MASTER_ADDR and MASTER_PORT, and that rank 0 runs "
                    "there."
                ) from error
        time.sleep(PAUSE_S)

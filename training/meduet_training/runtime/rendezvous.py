"""Check that the processes of a job can reach each other, before torch.distributed tries it.

torch.distributed waits for minutes and then raises an error that does not name the setting to change.
"""

import errno
import os
import socket
import time
from collections.abc import Mapping

from napari_meduet.errors import InputError

TIMEOUT_S = 45.0  # until rank 0 must answer
PAUSE_S = 0.5  # between two attempts


def check_rendezvous(
    address: str,
    port: int,
    rank: int,
    variables: Mapping[str, str] = os.environ,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Wait until rank 0 answers at its address. On rank 0 itself, check that the port is free.

    Raises:
        InputError: the port is in use, or rank 0 does not answer in time.
    """
    is_host = rank == 0 and variables.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not is_host:
        _wait_for_answer(address, port, rank, timeout_s)
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
                f"Port {port} of this machine is in use, so the processes of this job cannot use it. Set "
                "MASTER_PORT to another port, or end the job that uses this one."
            ) from error
        server.listen()
        try:
            socket.create_connection((address, port), timeout=PAUSE_S * 10).close()
        except OSError as error:
            raise InputError(
                f"MASTER_ADDR is {address}, but rank 0 runs on this machine, which does not answer at "
                f"that address ({error.strerror or error}). Set MASTER_ADDR to the name or "
                "address of this machine."
            ) from error


def _wait_for_answer(address: str, port: int, rank: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            left = max(PAUSE_S, deadline - time.monotonic())
            socket.create_connection((address, port), timeout=left).close()
            return
        except OSError as error:
            if time.monotonic() + PAUSE_S > deadline:
                raise InputError(
                    f"Rank {rank} got no answer from {address}:{port} within {timeout_s:.0f} s "
                    f"({error.strerror or error}). Check MASTER_ADDR and MASTER_PORT, and that rank 0 runs "
                    "there."
                ) from error
        time.sleep(PAUSE_S)

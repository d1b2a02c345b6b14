"""Identity of a process, so that another process on the same machine can tell whether it still runs.

A process id alone is not enough: the system reuses it, and another machine or container has the same ids.
psutil gives a start time that moves when the system clock is set, which would make a running process look
ended (docs/reliability.md, T17), so the start is read in ticks since boot.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
NUMBERS = Path("/proc/self/ns/pid")  # processes of one name space share their ids


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process on one machine.

    Attributes:
        host: name of the machine, for messages.
        machine: identifies the machine, its boot and the container.
        started: start time in ticks since boot; 0 where the system does not tell it.
    """

    host: str
    machine: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Process:
    """Return the identity of the calling process."""
    host = socket.gethostname()
    try:
        machine = f"{host} {BOOT.read_text().strip()} {os.readlink(NUMBERS)}"
    except OSError:  # not Linux
        machine = host
    return Process(host=host, machine=machine, pid=os.getpid(), started=_started(os.getpid()) or 0)


def is_alive(process: Process) -> bool | None:
    """Whether the process still runs; None if it belongs to another machine, so this one cannot tell."""
    if process.machine != this_process().machine:
        return None
    if process.started:
        return _started(process.pid) == process.started
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _started(pid: int) -> int | None:
    """Return the start of a process in ticks since boot; None if it has ended or the system does not tell."""
    try:
        # After the program's name, which may contain any character, come the state and, 19 fields later, the
        # start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])

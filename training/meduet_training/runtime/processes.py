"""Which process is meant, so that others of the same machine can tell whether it still runs.

A number alone is not enough: it is given away again, and another machine or container has the same ones.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
NUMBERS = Path("/proc/self/ns/pid")  # processes of one such name space share their numbers


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process on one machine.

    Attributes:
        host: the machine's name, for people.
        machine: tells machines apart, one boot from the next, and one container from another.
        started: in ticks after the boot; 0 where the system does not say.
    """

    host: str
    machine: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Process:
    """The one that asks."""
    host = socket.gethostname()
    try:
        machine = f"{host} {BOOT.read_text().strip()} {os.readlink(NUMBERS)}"
    except OSError:  # not Linux
        machine = host
    return Process(host=host, machine=machine, pid=os.getpid(), started=_started(os.getpid()) or 0)


def is_alive(process: Process) -> bool | None:
    """Whether it still runs; None where this machine cannot tell, because it is another's."""
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
    """When a process began, in ticks after the boot; None if it is over, or the system does not say."""
    try:
        # Behind the program's name, which may hold anything, come the state and, 19 further on, the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])

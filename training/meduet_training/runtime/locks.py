"""A run's folder belongs to one run at a time: a lock that names who holds it.

On the machine of the holder it is known at once whether it still runs. On another one the lock is watched for
a while: the holder writes to it every few seconds, and no clock is compared with another machine's.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from meduet_training.runtime.messages import say_on_stderr
from meduet_training.runtime.processes import Process, is_alive, this_process
from napari_meduet.errors import InputError

LOCK = "lock"
BEAT_S = 10.0
WATCHED_S = 60.0  # for a holder on another machine; network disks may show a change this late
JUST_MADE_S = 1.0  # between the making of a lock and its first content


@contextmanager
def hold_folder(folder: Path, say: Callable[[str], None] = say_on_stderr) -> Iterator[None]:
    """Hold a run's folder until the block ends.

    Args:
        say: hears that the lock of a process that is over was taken over.

    Raises:
        InputError: another run holds it, or it cannot be written to.
    """
    path = folder / LOCK
    _take(path, say)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, ended), name="folder lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        if _holder(path) == this_process():
            path.unlink(missing_ok=True)


def _take(path: Path, say: Callable[[str], None]) -> None:
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            holder = _refuse_if_held(path, say)
            say(f"{path}: was left by {holder or 'a process'} that is over; this run takes it over.")
            path.unlink(missing_ok=True)
            continue
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot be written to ({error.strerror}); give another output folder."
            ) from error
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(_content(0))
            file.flush()
            os.fsync(descriptor)
        return


def _refuse_if_held(path: Path, say: Callable[[str], None]) -> Process | None:
    """Who held it, if that is over.

    Raises:
        InputError: the holder still runs.
    """
    before = _read(path)
    if not before:  # made this moment, or its maker was killed in between
        time.sleep(JUST_MADE_S)
        before = _read(path)
    holder = _holder(path)
    alive = False if holder is None else is_alive(holder)
    if alive is None:
        say(f"{path}: is held by {holder}; watching for {WATCHED_S:.0f} s whether it still runs.")
        deadline = time.monotonic() + WATCHED_S
        while time.monotonic() < deadline and _read(path) == before:
            time.sleep(min(1.0, WATCHED_S))
        alive = _read(path) != before
    if alive:
        raise InputError(
            f"{path.parent}: {holder} is training here (its {LOCK} says so); wait until it ends, or give "
            "another output folder."
        )
    return holder


def _beat(path: Path, ended: threading.Event) -> None:
    """Write to the lock every few seconds, in place: a reader sees the old number or the new one."""
    number = 0
    while not ended.wait(BEAT_S):
        number += 1
        try:
            if _holder(path) == this_process():
                with path.open("r+", encoding="utf-8") as file:
                    file.write(_content(number))
        except OSError:
            continue  # the next one may get through


def _content(number: int) -> str:
    """The same length at every beat, so that none leaves a piece of the one before."""
    return json.dumps({"beat": f"{number:09d}"} | asdict(this_process()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _holder(path: Path) -> Process | None:
    try:
        words = json.loads(_read(path))
        return Process(**{name: words[name] for name in ("host", "machine", "pid", "started")})
    except (ValueError, KeyError, TypeError):
        return None

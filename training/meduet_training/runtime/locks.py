"""A lock file that gives a run's folder to one process at a time, and names that process.

On the machine of the holder, the process table tells at once whether the holder still runs. On another
machine, the
lock file is watched for a while: the holder writes to it every few seconds. No clocks of two machines are
compared.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from meduet_training.runtime.messages import print_to_stderr
from meduet_training.runtime.processes import Process, is_alive, this_process
from napari_meduet.errors import InputError

LOCK = "lock"
BEAT_S = 10.0
WATCHED_S = 60.0  # watch time for a holder on another machine; a network disk may show a change this late
JUST_MADE_S = 1.0  # longest time between the creation of a lock file and its first content


@contextmanager
def lock_folder(folder: Path, say: Callable[[str], None] = print_to_stderr) -> Iterator[None]:
    """Hold the lock of a run's folder until the block ends.

    Args:
        say: called with a sentence when the lock of an ended process was taken over.

    Raises:
        InputError: another run holds the lock, or the folder is not writable.
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
            say(f"{path}: {holder or 'a process'} left this lock and has ended; this run takes it over.")
            path.unlink(missing_ok=True)
            continue
        except OSError as error:
            raise InputError(
                f"{path.parent}: this folder is not writable ({error.strerror}). Give another output folder."
            ) from error
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(_content(0))
            file.flush()
            os.fsync(descriptor)
        return


def _refuse_if_held(path: Path, say: Callable[[str], None]) -> Process | None:
    """Return the holder of the lock if that process has ended.

    Raises:
        InputError: the holder still runs.
    """
    before = _read(path)
    if not before:  # just created, or its creator was killed before it wrote
        time.sleep(JUST_MADE_S)
        before = _read(path)
    holder = _holder(path)
    alive = False if holder is None else is_alive(holder)
    if alive is None:
        say(f"{path}: {holder} holds this lock. Watching for {WATCHED_S:.0f} s whether it still runs.")
        deadline = time.monotonic() + WATCHED_S
        while time.monotonic() < deadline and _read(path) == before:
            time.sleep(min(1.0, WATCHED_S))
        alive = _read(path) != before
    if alive:
        raise InputError(
            f"{path.parent}: {holder} is training in this folder (its file {LOCK} says so). Wait until it "
            "ends, or give another output folder."
        )
    return holder


def _beat(path: Path, ended: threading.Event) -> None:
    """Write to the lock file every few seconds, in place: a reader sees the old number or the new one."""
    number = 0
    while not ended.wait(BEAT_S):
        number += 1
        try:
            if _holder(path) == this_process():
                with path.open("r+", encoding="utf-8") as file:
                    file.write(_content(number))
        except OSError:
            continue  # the next write may succeed


def _content(number: int) -> str:
    """Return the content of the lock file. Its length is constant, so each beat overwrites all of it."""
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

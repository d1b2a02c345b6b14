"""A run's folder belongs to one run at a time (T18)."""

import json
import multiprocessing
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from meduet_training.runtime import locks
from meduet_training.runtime.locks import LOCK, lock_folder
from meduet_training.runtime.processes import is_alive, this_process
from napari_meduet.errors import InputError

FORK = multiprocessing.get_context("fork")


def hold_for_ever(folder: Path, held) -> None:
    with lock_folder(folder):
        held.set()
        time.sleep(600)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    held = FORK.Event()
    process = FORK.Process(target=hold_for_ever, args=(tmp_path, held))
    process.start()
    assert held.wait(30)
    yield process
    process.kill()
    process.join()


def leave_lock(folder: Path, **changes) -> None:
    holder = asdict(replace(this_process(), **changes))
    (folder / LOCK).write_text(json.dumps({"beat": "0"} | holder))


def test_the_lock_is_gone_afterwards(tmp_path):
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == this_process().pid
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path, other):
    with (
        pytest.raises(
            InputError, match=rf"process {other.pid} on {this_process().host} is training in this folder"
        ),
        lock_folder(tmp_path),
    ):
        pass
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == other.pid


def test_the_lock_of_a_killed_process_is_taken_over_with_a_word(tmp_path, other):
    other.kill()
    other.join()
    said = []
    with lock_folder(tmp_path, said.append):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == this_process().pid
    assert len(said) == 1
    assert f"process {other.pid} on {this_process().host} left this lock" in said[0]


def test_a_process_that_was_given_the_number_of_a_dead_one_holds_nothing(tmp_path):
    leave_lock(tmp_path, started=this_process().started - 1)
    said = []
    with lock_folder(tmp_path, said.append):
        assert len(said) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_lock_whose_maker_was_killed_in_between_is_taken_over(tmp_path, monkeypatch, content):
    monkeypatch.setattr(locks, "JUST_MADE_S", 0.0)
    (tmp_path / LOCK).write_text(content)
    said = []
    with lock_folder(tmp_path, said.append):
        assert len(said) == 1


def test_on_another_machine_a_silent_holder_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WATCHED_S", 0.2)
    leave_lock(tmp_path, machine="another", host="node7", pid=5)
    said = []
    with lock_folder(tmp_path, said.append):
        pass
    assert [sentence.partition(": ")[2] for sentence in said] == [
        "process 5 on node7 holds this lock. Watching for 0 s whether it still runs.",
        "process 5 on node7 left this lock and has ended; this run takes it over.",
    ]


def test_on_another_machine_a_holder_that_writes_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WATCHED_S", 10.0)
    leave_lock(tmp_path, machine="another", host="node7", pid=5)
    beat = threading.Timer(0.1, lambda: (tmp_path / LOCK).open("a").write(" "))
    beat.start()
    with pytest.raises(InputError, match="process 5 on node7 is training"), lock_folder(tmp_path, print):
        pass
    beat.join()


def test_the_holder_writes_every_few_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    with lock_folder(tmp_path):
        deadline = time.monotonic() + 10
        while json.loads((tmp_path / LOCK).read_text() or "{}").get("beat", "") < "000000003":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    with pytest.raises(InputError, match="gone: this folder is not writable"), lock_folder(tmp_path / "gone"):
        pass


def test_a_process_that_is_over_but_not_yet_waited_for_is_dead():
    process = FORK.Process(target=time.sleep, args=(0,))
    process.start()
    here = this_process()
    deadline = time.monotonic() + 10
    while is_alive(replace(here, pid=process.pid, started=0)) and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]:
            break
    assert is_alive(replace(here, pid=process.pid, started=1)) is False
    process.join()
    assert is_alive(replace(here, pid=process.pid, started=0)) is False
    assert is_alive(here) is True

"""A server over a real sshd: commands run and followed, files got and put, strangers and thieves refused."""

import asyncio
import hashlib
import os
import re
import stat
import subprocess
import sys
import time

import pytest

from meduet_training.remote import host as host_module
from meduet_training.remote.host import RemoteHost, Unreachable
from napari_meduet.errors import InputError


async def run(command: list[str], name: str = "server") -> str:
    async with RemoteHost.connect(name) as host:
        return await host.run(command)


def test_words_arrive_as_they_are_whatever_is_in_them(home):
    words = ["a b", "$HOME", "`id`", "'", '"', ";", "ü", "*"]
    printed = asyncio.run(run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words]))
    assert printed == f"{words}\n"


def test_a_command_that_fails_says_why(home):
    script = "import sys; print('That scan is damaged.', file=sys.stderr); sys.exit(2)"
    with pytest.raises(InputError, match=r"^server: That scan is damaged\.$"):
        asyncio.run(run([sys.executable, "-c", script]))
    with pytest.raises(InputError, match="exit code 1: ZeroDivisionError"):
        asyncio.run(run([sys.executable, "-c", "1 / 0"]))


def test_a_missing_command_says_what_to_install(home):
    with pytest.raises(InputError, match=r"no command nowhere: install napari-meduet .*--program"):
        asyncio.run(run(["nowhere"]))


def test_lines_come_while_the_command_runs(home):
    script = "import time; print('one', flush=True); time.sleep(20); print('two')"

    async def first_line() -> str:
        async with RemoteHost.connect("server") as host:
            async for line in host.follow([sys.executable, "-c", script]):
                return line
        raise AssertionError("nothing came")

    began = time.monotonic()
    assert asyncio.run(first_line()) == "one"
    assert time.monotonic() - began < 15


def test_a_lost_connection_is_told_from_the_end_of_a_command(home, sshd):
    heard = []

    async def follow() -> None:
        async with RemoteHost.connect("server") as host:
            async for line in host.follow(["sh", "-c", "echo one; sleep 60"]):
                heard.append(line)
                sshd.cut_connections()

    with pytest.raises(Unreachable, match="lost"):
        asyncio.run(follow())
    assert heard == ["one"]


def test_files_go_and_come_whole_and_private(home, tmp_path):
    content = os.urandom(3 * 2**20 + 5)
    (tmp_path / "sent").write_bytes(content)
    there = tmp_path / "server folder" / "there"
    there.parent.mkdir()

    async def there_and_back() -> None:
        async with RemoteHost.connect("server") as host:
            await host.put(tmp_path / "sent", str(there))
            await host.get(str(there), tmp_path / "back", hashlib.sha256(content).hexdigest())

    asyncio.run(there_and_back())
    assert (tmp_path / "back").read_bytes() == content
    assert stat.S_IMODE(there.stat().st_mode) == 0o600
    assert [path.name for path in there.parent.iterdir()] == ["there"]


def test_a_file_that_is_not_the_announced_one_does_not_appear(home, tmp_path):
    (tmp_path / "there").write_bytes(b"replaced")

    async def get(name: str) -> None:
        async with RemoteHost.connect("server") as host:
            await host.get(str(tmp_path / name), tmp_path / "back", "0" * 64)

    with pytest.raises(InputError, match="sha256 differs"):
        asyncio.run(get("there"))
    with pytest.raises(InputError, match="nothing on server: cannot be fetched"):
        asyncio.run(get("nothing"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "there"]


def test_a_connection_lost_while_a_file_comes_leaves_the_old_one(home, sshd, tmp_path):
    (tmp_path / "there").write_bytes(bytes(200 * 2**20))
    (tmp_path / "back").write_text("old")

    async def get() -> None:
        async with RemoteHost.connect("server") as host:
            fetching = asyncio.create_task(host.get(str(tmp_path / "there"), tmp_path / "back", "0" * 64))
            while not any(path.stat().st_size for path in tmp_path.glob(".*-0")):
                await asyncio.sleep(0.01)
            sshd.cut_connections()
            await fetching

    with pytest.raises(Unreachable):
        asyncio.run(get())
    assert (tmp_path / "back").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "home", "there"]


def test_an_unknown_server_is_refused_with_its_fingerprint(home, sshd):
    (home / ".ssh" / "known_hosts").unlink()
    listing = subprocess.run(
        ["ssh-keygen", "-lf", sshd.folder / "host.pub"], capture_output=True, text=True, check=True
    )
    with pytest.raises(InputError) as refusal:
        asyncio.run(run(["true"]))
    assert listing.stdout.split()[1] in str(refusal.value)
    assert "run `ssh server` once" in str(refusal.value)
    assert not (home / ".ssh" / "known_hosts").exists(), "it must not be accepted by itself"


def test_a_server_with_another_key_than_before_is_refused(home, sshd):
    known = home / ".ssh" / "known_hosts"
    known.write_text(
        known.read_text().replace((sshd.folder / "host.pub").read_text().split()[1], other_key(home))
    )
    with pytest.raises(InputError, match="the key has changed"):
        asyncio.run(run(["true"]))


def other_key(folder) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "other"], check=True)
    return (folder / "other.pub").read_text().split()[1]


def test_a_person_without_a_key_is_told_what_to_do(home):
    config = home / ".ssh" / "config"
    other_key(home)
    config.write_text(config.read_text().split("  IdentityFile")[0] + f"  IdentityFile {home / 'other'}\n")
    with pytest.raises(InputError, match=r"lets nobody in.*ssh-add"):
        asyncio.run(run(["true"]))


def test_a_server_that_is_away_is_unreachable(home):
    config = home / ".ssh" / "config"
    config.write_text(re.sub(r"Port \d+", "Port 1", config.read_text()))
    with pytest.raises(Unreachable, match="server cannot be reached"):
        asyncio.run(run(["true"]))


def test_without_asyncssh_a_sentence_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "asyncssh"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "meduet_training.remote.connecting", raising=False)
    monkeypatch.delattr("meduet_training.remote.connecting", raising=False)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(InputError, match=r"pip install 'napari-meduet\[remote\]'"):
        asyncio.run(run(["true"]))
    assert "asyncssh" not in vars(host_module)

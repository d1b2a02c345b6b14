"""Connections through a real sshd: commands, files, lost connections, and unknown or changed host keys."""

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
from meduet_training.remote.errors import HostUnreachable
from meduet_training.remote.host import RemoteHost
from napari_meduet.errors import InputError


async def run(command: list[str], name: str = "server") -> str:
    async with RemoteHost.connect(name) as host:
        return await host.run(command)


def test_arguments_with_special_characters_arrive_unchanged(home):
    words = ["a b", "$HOME", "`id`", "'", '"', ";", "ü", "*"]
    printed = asyncio.run(run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words]))
    assert printed == f"{words}\n"


def test_a_failed_command_reports_its_message(home):
    script = "import sys; print('That scan is damaged.', file=sys.stderr); sys.exit(2)"
    with pytest.raises(InputError, match=r"^server: That scan is damaged\.$"):
        asyncio.run(run([sys.executable, "-c", script]))
    with pytest.raises(InputError, match="exit code 1: ZeroDivisionError"):
        asyncio.run(run([sys.executable, "-c", "1 / 0"]))


def test_a_missing_command_is_reported_with_what_to_install(home):
    with pytest.raises(InputError, match=r"no command nowhere: install napari-meduet .*--program"):
        asyncio.run(run(["nowhere"]))


def test_lines_arrive_while_the_command_runs(home):
    script = "import time; print('one', flush=True); time.sleep(20); print('two')"

    async def first_line() -> str:
        async with RemoteHost.connect("server") as host:
            async for line in host.follow([sys.executable, "-c", script]):
                return line
        raise AssertionError("nothing came")

    began = time.monotonic()
    assert asyncio.run(first_line()) == "one"
    assert time.monotonic() - began < 15


def test_a_lost_connection_differs_from_the_end_of_a_command(home, sshd):
    received = []

    async def follow() -> None:
        async with RemoteHost.connect("server") as host:
            async for line in host.follow(["sh", "-c", "echo one; sleep 60"]):
                received.append(line)
                sshd.cut_connections()

    with pytest.raises(HostUnreachable, match="lost"):
        asyncio.run(follow())
    assert received == ["one"]


def test_files_are_copied_completely_and_privately(home, tmp_path):
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


def test_a_connection_lost_during_a_download_keeps_the_old_file(home, sshd, tmp_path):
    (tmp_path / "there").write_bytes(bytes(200 * 2**20))
    (tmp_path / "back").write_text("old")

    async def get() -> None:
        async with RemoteHost.connect("server") as host:
            fetching = asyncio.create_task(host.get(str(tmp_path / "there"), tmp_path / "back", "0" * 64))
            while not any(path.stat().st_size for path in tmp_path.glob(".*-0")):
                await asyncio.sleep(0.01)
            sshd.cut_connections()
            await fetching

    with pytest.raises(HostUnreachable):
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


def test_a_server_with_a_changed_key_is_refused(home, sshd):
    known = home / ".ssh" / "known_hosts"
    known.write_text(
        known.read_text().replace((sshd.folder / "host.pub").read_text().split()[1], other_key(home))
    )
    with pytest.raises(InputError, match="the key has changed"):
        asyncio.run(run(["true"]))


def other_key(folder) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "other"], check=True)
    return (folder / "other.pub").read_text().split()[1]


def test_a_user_without_a_key_gets_advice(home):
    config = home / ".ssh" / "config"
    other_key(home)
    config.write_text(config.read_text().split("  IdentityFile")[0] + f"  IdentityFile {home / 'other'}\n")
    with pytest.raises(InputError, match=r"does not accept the SSH keys.*ssh-add"):
        asyncio.run(run(["true"]))


def test_a_server_that_does_not_answer_is_unreachable(home):
    config = home / ".ssh" / "config"
    config.write_text(re.sub(r"Port \d+", "Port 1", config.read_text()))
    with pytest.raises(HostUnreachable, match="server cannot be reached"):
        asyncio.run(run(["true"]))


def test_without_asyncssh_the_message_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "asyncssh"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "meduet_training.remote.ssh", raising=False)
    monkeypatch.delattr("meduet_training.remote.ssh", raising=False)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(InputError, match=r"pip install 'napari-meduet\[remote\]'"):
        asyncio.run(run(["true"]))
    assert "asyncssh" not in vars(host_module)

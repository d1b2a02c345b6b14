"""A real sshd on the loopback interface, with its own keys, as the entry `server` of a `~/.ssh/config`."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

SERVER_PROGRAM = Path(__file__).with_name("server_program.py")
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Sshd:
    """A running sshd whose connections can be cut."""

    folder: Path
    port: int
    process: subprocess.Popen

    def cut_connections(self) -> None:
        """Kill the processes that sshd started for its connections, as if the server were switched off."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("sshd"):
                    process.kill()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory) -> Iterator[Sshd]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd and ssh-keygen on this machine: scripts/setup-system.sh sshd installs them")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the folder in which sshd of root starts a login
    process = subprocess.Popen([program, "-D", "-f", folder / "sshd_config", "-E", folder / "sshd.log"])
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(port):
            assert time.monotonic() < deadline, (folder / "sshd.log").read_text()
            time.sleep(0.05)
        yield Sshd(folder, port, process)
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def home(sshd, tmp_path, monkeypatch) -> Path:
    """A home folder whose SSH configuration has an entry `server`."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "config").write_text(
        f"Host server\n  HostName 127.0.0.1\n  Port {sshd.port}\n  IdentityFile {sshd.folder / 'user'}\n"
    )
    host_key = (sshd.folder / "host.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {host_key}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("MEDUET_MODELS", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def server_program(tmp_path) -> str:
    """The path of a `meduet-pretrain` for the server, whose pretraining is the stand-in of tests/jobs."""
    program = tmp_path / "meduet-pretrain"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{SERVER_PROGRAM}' \"$@\"\n")
    program.chmod(0o755)
    return str(program)

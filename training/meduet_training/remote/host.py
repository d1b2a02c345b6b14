"""One server, and four things to do with it: run a command, follow one, get a file, put a file.

What SSH is, `connecting.py` knows. Nothing here stores a secret or asks for one.
"""

import hashlib
import secrets
import shlex
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection

T = TypeVar("T")
EXIT_INPUT = 2  # of our commands: a sentence for the person is on stderr
NOT_FOUND = 127  # of a shell: there is no such command
BLOCK_BYTES = 2**20


class Unreachable(InputError):
    """The server cannot be reached now. It may be later."""


class RemoteHost:
    """A connection to one server. Made by `connect`."""

    def __init__(self, name: str, connection: "SSHClientConnection") -> None:
        self.name = name
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, name: str) -> AsyncIterator["RemoteHost"]:
        """A connection that lasts as long as the block.

        Args:
            name: of the server, as `ssh` takes it: `host`, `user@host`, or an entry of `~/.ssh/config`.

        Raises:
            Unreachable: nobody answers.
            InputError: asyncssh is not installed, or the server is unknown or lets nobody in.
        """
        try:
            from meduet_training.remote import connecting
        except ModuleNotFoundError as error:
            raise InputError(
                "Servers are reached over asyncssh, which is not installed here: pip install "
                "'napari-meduet[remote]'."
            ) from error
        connection = await connecting.connect(name)
        try:
            yield cls(name, connection)
        finally:
            connection.abort()  # a lost one would be waited for

    async def run(self, command: Sequence[str]) -> str:
        """What a command prints.

        Raises:
            Unreachable: the connection was lost; the command may have been carried out or not.
            InputError: what the command says of why it failed.
        """
        import asyncssh

        result = await self._or_lost(
            self._connection.run(
                shlex.join(command), stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace"
            )
        )
        self._check(command, result.exit_status, str(result.stderr))
        return str(result.stdout)

    async def follow(self, command: Sequence[str]) -> AsyncIterator[str]:
        """The lines that a command prints, as it prints them.

        Raises:
            Unreachable: the connection was lost before the command ended.
            InputError: what the command says of why it failed.
        """
        import asyncssh

        process = await self._or_lost(
            self._connection.create_process(
                shlex.join(command), stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace"
            )
        )
        while line := await self._or_lost(process.stdout.readline()):
            yield line.rstrip("\r\n")
        said = await self._or_lost(process.stderr.read())
        await self._or_lost(process.wait_closed())
        self._check(command, process.exit_status, said)

    async def get(self, remote: str, local: Path, sha256: str) -> None:
        """Fetch a file; it appears whole and only if its digest is this one.

        Raises:
            Unreachable: the connection was lost; nothing was changed.
            InputError: there is no such file, it is another, or there is no room for it.
        """
        import asyncssh

        with write_atomically(local, overwrite=True) as temporary:
            try:
                async with await self._or_lost(self._connection.start_sftp_client()) as sftp:
                    await self._or_lost(sftp.get(remote, temporary))
            except asyncssh.SFTPError as error:
                raise InputError(f"{remote} on {self.name}: cannot be fetched ({error.reason}).") from error
            if _sha256(temporary) != sha256:
                raise InputError(
                    f"{local.name}: what came from {self.name} is not what it announced (sha256 differs); "
                    "fetch it again."
                )

    async def put(self, local: Path, remote: str) -> None:
        """Send a file; it appears whole, readable by its owner alone.

        Raises:
            Unreachable: the connection was lost; nothing was changed.
            InputError: one of the files cannot be opened, or there is no room.
        """
        import asyncssh

        if not local.is_file():
            raise InputError(f"{local.name}: there is no such file.")
        temporary = f"{remote}.{secrets.token_hex(6)}"
        try:
            async with await self._or_lost(self._connection.start_sftp_client()) as sftp:
                async with await sftp.open(temporary, "wb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                    with local.open("rb") as source:
                        while block := source.read(BLOCK_BYTES):
                            await self._or_lost(file.write(block))
                await self._or_lost(sftp.posix_rename(temporary, remote))
        except asyncssh.SFTPError as error:
            raise InputError(f"{remote} on {self.name}: cannot be written ({error.reason}).") from error

    async def remove(self, remote: str) -> None:
        """Delete a file that `put` made."""
        async with await self._or_lost(self._connection.start_sftp_client()) as sftp:
            await self._or_lost(sftp.remove(remote))

    async def _or_lost(self, doing: Awaitable[T]) -> T:
        """The result, or `Unreachable` where the connection failed meanwhile."""
        import asyncssh

        try:
            return await doing
        except (
            OSError,
            asyncssh.DisconnectError,
            asyncssh.ChannelOpenError,
            asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection,
        ) as error:
            raise Unreachable(f"The connection to {self.name} was lost ({error}).") from error

    def _check(self, command: Sequence[str], exit_status: int | None, said: str) -> None:
        if exit_status == 0:
            return
        if exit_status is None:
            raise Unreachable(f"The connection to {self.name} was lost.")
        if exit_status == NOT_FOUND:
            raise InputError(
                f"{self.name} has no command {command[0]}: install napari-meduet with its extra [train] "
                "there, or name the command with --program, by its path on the server."
            )
        lines = [line for line in said.splitlines() if line.strip()] or ["it gave no reason"]
        sentence = " ".join(lines) if exit_status == EXIT_INPUT else f"exit code {exit_status}: {lines[-1]}"
        raise InputError(f"{self.name}: {sentence}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

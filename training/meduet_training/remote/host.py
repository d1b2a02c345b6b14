"""A connection to a server, with which commands are run or followed and files are copied.

ssh.py opens the connection. server.py knows which commands to run. This file stores no secret and asks for
none.
"""

import secrets
import shlex
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from meduet_training.jobs.export import sha256_of
from meduet_training.remote.errors import HostUnreachable
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection

T = TypeVar("T")
EXIT_INPUT = 2  # exit code of our commands after an InputError; its message is on stderr
EXIT_NOT_FOUND = 127  # exit code of a shell that does not find the command
BLOCK_BYTES = 2**20


class RemoteHost:
    """A connection to one server. `RemoteHost.connect` opens it.

    Examples:
        >>> async def show(name: str) -> None:
        ...     async with RemoteHost.connect(name) as host:
        ...         print(await host.run(["nvidia-smi", "--list-gpus"]))
        >>> asyncio.run(show("gpu-server"))  # doctest: +SKIP
    """

    def __init__(self, name: str, connection: "SSHClientConnection") -> None:
        self.name = name
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, name: str) -> AsyncIterator["RemoteHost"]:
        """Open a connection that lasts until the block ends.

        Args:
            name: name of the server as for `ssh`: `host`, `user@host`, or an entry of `~/.ssh/config`.

        Raises:
            HostUnreachable: no server answers.
            InputError: asyncssh is not installed, the server is unknown, or it refuses the user's keys.
        """
        try:
            from meduet_training.remote import ssh
        except ModuleNotFoundError as error:
            raise InputError(
                "Connections to servers need asyncssh, which is not installed. Run: pip install "
                "'napari-meduet[remote]'"
            ) from error
        connection = await ssh.open_connection(name)
        try:
            yield cls(name, connection)
        finally:
            connection.abort()  # close() would wait for a lost connection

    async def run(self, command: Sequence[str]) -> str:
        """Run a command, and return its output.

        Raises:
            HostUnreachable: the connection was lost. The command may have run or not.
            InputError: the command failed; the message is that of the command.
        """
        import asyncssh

        result = await self._checked(
            self._connection.run(
                shlex.join(command), stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace"
            )
        )
        self._check_exit(command, result.exit_status, str(result.stderr))
        return str(result.stdout)

    async def follow(self, command: Sequence[str]) -> AsyncIterator[str]:
        """Run a command, and yield each line of its output as soon as it is printed.

        Raises:
            HostUnreachable: the connection was lost before the command ended.
            InputError: the command failed; the message is that of the command.
        """
        import asyncssh

        process = await self._checked(
            self._connection.create_process(
                shlex.join(command), stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace"
            )
        )
        while line := await self._checked(process.stdout.readline()):
            yield line.rstrip("\r\n")
        errors = await self._checked(process.stderr.read())
        await self._checked(process.wait_closed())
        self._check_exit(command, process.exit_status, errors)

    async def get(self, remote: str, local: Path, sha256: str) -> None:
        """Copy a file from the server. The file appears only if it is complete and has this digest.

        Raises:
            HostUnreachable: the connection was lost. Nothing was changed.
            InputError: the file does not exist, has another digest, or does not fit on the disk.
        """
        import asyncssh

        with write_atomically(local, overwrite=True) as temporary:
            try:
                async with await self._checked(self._connection.start_sftp_client()) as sftp:
                    await self._checked(sftp.get(remote, temporary))
            except asyncssh.SFTPError as error:
                raise InputError(f"{remote} on {self.name}: cannot be fetched ({error.reason}).") from error
            if sha256_of(temporary) != sha256:
                raise InputError(
                    f"{local.name}: the file from {self.name} is not the announced one (sha256 differs). "
                    "Fetch it again."
                )

    async def put(self, local: Path, remote: str) -> None:
        """Copy a file to the server. The file appears only if it is complete, and only its owner can read it.

        Raises:
            HostUnreachable: the connection was lost. Nothing was changed.
            InputError: one of the files cannot be opened, or the disk of the server is full.
        """
        import asyncssh

        if not local.is_file():
            raise InputError(f"{local.name}: there is no such file.")
        temporary = f"{remote}.{secrets.token_hex(6)}"
        try:
            async with await self._checked(self._connection.start_sftp_client()) as sftp:
                async with await sftp.open(temporary, "wb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                    with local.open("rb") as source:
                        while block := source.read(BLOCK_BYTES):
                            await self._checked(file.write(block))
                await self._checked(sftp.posix_rename(temporary, remote))
        except asyncssh.SFTPError as error:
            raise InputError(f"{remote} on {self.name}: cannot be written ({error.reason}).") from error

    async def remove(self, remote: str) -> None:
        """Delete a file on the server."""
        async with await self._checked(self._connection.start_sftp_client()) as sftp:
            await self._checked(sftp.remove(remote))

    async def _checked(self, operation: Awaitable[T]) -> T:
        """Return the result of an operation, or raise HostUnreachable if the connection fails."""
        import asyncssh

        try:
            return await operation
        except (
            OSError,
            asyncssh.DisconnectError,
            asyncssh.ChannelOpenError,
            asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection,
        ) as error:
            raise HostUnreachable(f"The connection to {self.name} was lost ({error}).") from error

    def _check_exit(self, command: Sequence[str], exit_status: int | None, stderr: str) -> None:
        """Raise an error with the command's message if the command failed."""
        if exit_status == 0:
            return
        if exit_status is None:
            raise HostUnreachable(f"The connection to {self.name} was lost.")
        if exit_status == EXIT_NOT_FOUND:
            raise InputError(
                f"{self.name} has no command {command[0]}: install napari-meduet with its extra [train] "
                "on the server, or give the path of the command on the server with --program."
            )
        lines = [line for line in stderr.splitlines() if line.strip()] or ["it gave no reason"]
        sentence = " ".join(lines) if exit_status == EXIT_INPUT else f"exit code {exit_status}: {lines[-1]}"
        raise InputError(f"{self.name}: {sentence}")

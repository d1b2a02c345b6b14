"""`meduet-pretrain jobs` of a server, called from another machine.

host.py runs the commands over SSH. Their answers are JSON (commands/jobs.py).
"""

import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meduet_training.jobs.choices import PROGRAM
from meduet_training.remote.host import RemoteHost
from napari_meduet.errors import InputError


@dataclass(frozen=True)
class Server:
    """The jobs of one server.

    Attributes:
        program: command on the server, or its path if a login does not find the command. A relative path
            starts at the home folder.
        jobs: folder of all jobs on the server. None: the default of the command.

    Examples:
        Print the GPUs and the free memory of a server.

        >>> async def show(name: str) -> None:
        ...     async with RemoteHost.connect(name) as host:
        ...         print(await Server(host).machine())
        >>> asyncio.run(show("gpu-server"))  # doctest: +SKIP
    """

    host: RemoteHost
    program: str = PROGRAM
    jobs: str | None = None

    async def machine(self) -> dict[str, Any]:
        """Return GPUs, memory, disk, versions, and whether SLURM is available."""
        return await self._call("machine")

    async def submit(self, config: Path, name: str, options: Sequence[str]) -> dict[str, Any]:
        """Submit a job, and return its status.

        Args:
            config: configuration file on this machine.
            name: beginning of the job's name.
            options: further arguments of `jobs submit`.
        """
        remote = f".meduet-launch-{secrets.token_hex(6)}.yaml"
        await self.host.put(config, remote)
        try:
            return await self._call("submit", remote, "--name", name, *options)
        finally:
            await self.host.remove(remote)

    async def status(self, job: str) -> dict[str, Any]:
        """Return the status of a job."""
        return await self._call("status", job)

    async def cancel(self, job: str) -> dict[str, Any]:
        """Signal a job to save a checkpoint and to end, and return its status."""
        return await self._call("cancel", job)

    async def export(self, job: str) -> dict[str, Any]:
        """Export the model of the job's newest checkpoint, and return the description of its files."""
        return await self._call("export", job)

    async def events(self, job: str, offset: int, after_step: int) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a job until it is over (jobs/events.py)."""
        arguments = ["logs", job, "--follow", f"--offset={offset}", f"--after-step={after_step}"]
        async for line in self.host.follow(self._command(*arguments)):
            yield self._parsed(line)

    async def _call(self, *arguments: str) -> dict[str, Any]:
        return self._parsed(await self.host.run(self._command(*arguments)))

    def _command(self, *arguments: str) -> list[str]:
        jobs = ["--jobs", self.jobs] if self.jobs else []
        return [self.program, "jobs", *arguments, *jobs, "--json"]

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            return json.loads(text)
        except ValueError as error:
            raise InputError(
                f"{self.host.name}: the answer of {self.program} is not JSON. Check that the server has the "
                "same version of napari-meduet, and that a login prints no text of its own."
            ) from error

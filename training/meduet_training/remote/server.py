"""`meduet-pretrain jobs` of a server, called from elsewhere."""

import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meduet_training.remote.host import RemoteHost
from napari_meduet.errors import InputError

PROGRAM = "meduet-pretrain"


@dataclass(frozen=True)
class Server:
    """The jobs of one server.

    Attributes:
        program: the command there; its path from the home folder or from / where a login does not find it.
        jobs: the folder of all jobs there; that of the command by default.
    """

    host: RemoteHost
    program: str = PROGRAM
    jobs: str | None = None

    async def machine(self) -> dict[str, Any]:
        """GPUs, memory, disk, versions, and whether SLURM is there: what a test of the connection shows."""
        return await self._ask("machine")

    async def submit(self, config: Path, name: str, options: Sequence[str]) -> dict[str, Any]:
        """The status of a new job.

        Args:
            options: of `jobs submit`, as words.
        """
        remote = f".meduet-launch-{secrets.token_hex(6)}.yaml"
        await self.host.put(config, remote)
        try:
            return await self._ask("submit", remote, "--name", name, *options)
        finally:
            await self.host.remove(remote)

    async def status(self, job: str) -> dict[str, Any]:
        return await self._ask("status", job)

    async def cancel(self, job: str) -> dict[str, Any]:
        return await self._ask("cancel", job)

    async def export(self, job: str) -> dict[str, Any]:
        """Where the model of the job's last checkpoint lies there, and its files with their digests."""
        return await self._ask("export", job)

    async def events(self, job: str, offset: int, after_step: int) -> AsyncGenerator[dict[str, Any]]:
        """What the job says, until it is over (`jobs/following.py`)."""
        words = ["logs", job, "--follow", f"--offset={offset}", f"--after-step={after_step}"]
        async for line in self.host.follow(self._command(*words)):
            yield self._parsed(line)

    async def _ask(self, *words: str) -> dict[str, Any]:
        return self._parsed(await self.host.run(self._command(*words)))

    def _command(self, *words: str) -> list[str]:
        jobs = ["--jobs", self.jobs] if self.jobs else []
        return [self.program, "jobs", *words, *jobs, "--json"]

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise InputError(
                f"{self.host.name}: {self.program} gave an answer that is no JSON; is it of this version, "
                "and does the login print nothing of its own?"
            ) from error
        return answer

"""Follow the events of a job on a server, and reconnect after a lost connection."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from meduet_training.remote.errors import HostUnreachable
from meduet_training.remote.history import LaunchedJob
from meduet_training.remote.host import RemoteHost
from meduet_training.remote.server import Server

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


async def follow_job(launched: LaunchedJob) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events of a job until it is over, each event once, even if the connection is lost.

    The events are those of jobs/events.py, and `{"lost": sentence}` for each lost connection.

    Raises:
        InputError: the server refuses the connection, or has no such job.
    """
    offset, after_step, pause = 0, -1, FIRST_PAUSE_SECONDS
    while True:
        try:
            async with RemoteHost.connect(launched.host) as host:
                server = Server(host, launched.program, launched.jobs)
                async with aclosing(server.events(launched.job, offset, after_step)) as events:
                    async for event in events:
                        pause = FIRST_PAUSE_SECONDS
                        offset = event.get("offset", offset)
                        after_step = event.get("metrics", {}).get("step", after_step)
                        yield event
                return
        except HostUnreachable as error:
            yield {"lost": f"{error} The next attempt is in {pause:.0f} s."}
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

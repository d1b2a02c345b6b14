"""Following a job over connections that come and go."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from meduet_training.remote.host import RemoteHost, Unreachable
from meduet_training.remote.launched import Launched
from meduet_training.remote.server import Server

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


async def follow(launched: Launched) -> AsyncGenerator[dict[str, Any]]:
    """What a job says until it is over, each event once, however often the connection is lost meanwhile.

    Besides the events of the server there is `{"lost": sentence}` for each connection that was lost.

    Raises:
        InputError: the server refuses, or has no such job.
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
        except Unreachable as error:
            yield {"lost": f"{error} Trying again in {pause:.0f} s."}
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

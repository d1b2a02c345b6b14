"""Storage over a network fails now and then and is there again a second later: try a few times."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EHOSTDOWN}
PAUSES_S = (0.2, 1.0, 3.0)  # before the second, third and fourth attempt


def retrying(action: Callable[[], Result]) -> Result:
    """What `action` returns, tried again after each pause while storage fails in a way that may pass.

    Raises:
        Exception: what the last attempt raised; at once, if it is no failure that may pass.
    """
    for pause in PAUSES_S:
        try:
            return action()
        except Exception as error:
            if not _may_pass(error):
                raise
            time.sleep(pause)
    return action()


def _may_pass(error: BaseException) -> bool:
    """Whether it is, or was raised because of, an error of the storage that may be gone the next moment."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in PASSING

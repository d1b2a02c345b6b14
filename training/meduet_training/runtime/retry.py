"""Retries for network storage, which sometimes fails for a second and then works again."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EHOSTDOWN}
PAUSES_S = (0.2, 1.0, 3.0)  # pauses before the second, third and fourth attempt


def retry_storage(action: Callable[[], Result]) -> Result:
    """Call `action` and return its result; repeat the call after transient storage errors.

    Raises:
        Exception: the error of the last attempt, or at once an error that is not transient.
    """
    for pause in PAUSES_S:
        try:
            return action()
        except Exception as error:
            if not _is_transient(error):
                raise
            time.sleep(pause)
    return action()


def _is_transient(error: BaseException) -> bool:
    """Whether an error is, or was caused by, a transient error of the storage."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in TRANSIENT

"""The error of a connection that fails. It is a file of its own, because ssh.py imports asyncssh."""

from napari_meduet.errors import InputError


class HostUnreachable(InputError):
    """The server cannot be reached now. A later attempt may succeed."""

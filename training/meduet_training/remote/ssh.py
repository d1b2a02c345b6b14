"""Open an SSH connection, with the settings and the checks of `ssh`.

The user's `~/.ssh/config`, agent and keys are used. A host key that is not in `known_hosts` is shown and
refused. Passwords are not used. This is the only file that needs asyncssh when it is imported.
"""

import asyncssh

from meduet_training.remote.errors import HostUnreachable
from napari_meduet.errors import InputError

CONNECT_SECONDS = 20
KEEPALIVE_SECONDS = 10  # after three unanswered messages, the connection counts as lost


class _Client(asyncssh.SSHClient):
    """A client that stores a host key which `known_hosts` does not contain."""

    refused: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.refused = key
        return False


async def open_connection(name: str) -> asyncssh.SSHClientConnection:
    """Return a connection to a server.

    Args:
        name: name of the server as for `ssh`: `host`, `user@host`, or an entry of `~/.ssh/config`.

    Raises:
        HostUnreachable: no server answers.
        InputError: the host key is unknown or has changed, the server refuses the user's keys, or
            `~/.ssh/config` cannot be read.
    """
    user, _, host = name.rpartition("@")
    client = _Client()
    try:
        return await asyncssh.connect(
            host,
            username=user or (),
            client_factory=lambda: client,
            connect_timeout=CONNECT_SECONDS,
            keepalive_interval=KEEPALIVE_SECONDS,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise InputError(_host_key_message(name, client.refused, str(error))) from error
    except asyncssh.PermissionDenied as error:
        raise InputError(
            f"{host} does not accept the SSH keys of this machine. Check that `ssh {name}` works without a "
            "password. If not, load your key with ssh-add, or name it in ~/.ssh/config (IdentityFile). "
            "Passwords are not used."
        ) from error
    except asyncssh.ConfigParseError as error:
        raise InputError(f"~/.ssh/config: {error}") from error
    except (OSError, asyncssh.Error) as error:
        reason = str(error).strip() or type(error).__name__
        raise HostUnreachable(
            f"{host} cannot be reached ({reason}). Check the name, the server and the network."
        ) from error


def _host_key_message(name: str, key: asyncssh.SSHKey | None, reason: str) -> str:
    if key is None:
        return f"{name} could not prove its identity ({reason}). Ask its administrator."
    kind = key.get_algorithm().removeprefix("ssh-")
    return (
        f"{name} has a host key that is not in known_hosts: {kind}, {key.get_fingerprint()}. "
        "Nothing was sent. If you have connected to this server before, the key has changed, and someone may "
        "intercept the connection: ask the administrator. If not, compare this fingerprint with that of the "
        f"administrator (on the server: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub), then run "
        f"`ssh {name}` once and accept it there."
    )

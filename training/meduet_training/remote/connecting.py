"""An SSH connection, made as `ssh` would make it and no less carefully.

Who the server is, `known_hosts` says; an unknown key is shown and refused. `~/.ssh/config`, the agent and the
keys of the person are used; passwords are neither asked for nor taken.
"""

import asyncssh

from meduet_training.remote.host import Unreachable
from napari_meduet.errors import InputError

CONNECT_SECONDS = 20
KEEPALIVE_SECONDS = 10  # after three unanswered, the connection counts as lost


class _Client(asyncssh.SSHClient):
    """Remembers the key of a server that `known_hosts` does not hold."""

    refused: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.refused = key
        return False


async def connect(name: str) -> asyncssh.SSHClientConnection:
    """A connection to a server, by the name that `ssh` takes.

    Raises:
        Unreachable: nobody answers there.
        InputError: the server's key is unknown or another, or it lets nobody in, or the name means nothing.
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
        raise InputError(_refusal(name, client.refused, str(error))) from error
    except asyncssh.PermissionDenied as error:
        raise InputError(
            f"{host} lets nobody in with the keys of this machine. Does `ssh {name}` work without a "
            "password? If not, load your key with ssh-add, or name it in ~/.ssh/config (IdentityFile); "
            "passwords are not used."
        ) from error
    except asyncssh.ConfigParseError as error:
        raise InputError(f"~/.ssh/config: {error}") from error
    except (OSError, asyncssh.Error) as error:
        reason = str(error).strip() or type(error).__name__
        raise Unreachable(
            f"{host} cannot be reached ({reason}). Is the name right, the server up, the network on?"
        ) from error


def _refusal(name: str, key: asyncssh.SSHKey | None, reason: str) -> str:
    if key is None:
        return f"{name} could not prove who it is ({reason}); ask its administrator."
    kind = key.get_algorithm().removeprefix("ssh-")
    return (
        f"{name} shows a host key that known_hosts does not hold for it: {kind}, {key.get_fingerprint()}. "
        "Nothing was sent. If you were connected before, the key has changed, and somebody may listen in: "
        "ask the administrator. If not, compare this fingerprint with the administrator's (on the server: "
        f"ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub), then run `ssh {name}` once and accept it there."
    )

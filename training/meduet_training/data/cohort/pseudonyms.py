"""Patients under a hash that nobody can undo without the salt.

The salt is made once, lies beside the manifest in a file that its owner alone can read, and never enters
anything else: with it, ids could be guessed one by one.
"""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from napari_meduet.errors import InputError

SALT_BYTES = 32
HASH_LENGTH = 16  # hexadecimal digits: 64 bits, so that a million patients stay apart


@dataclass(frozen=True)
class Pseudonyms:
    """Gives the name under which a patient, or a series, goes into a manifest."""

    salt: bytes
    keep_ids: bool = False  # patients go by their own ids; series are hashed even so

    def patient(self, identity: str) -> str:
        """The patient's hash; scans of one patient share it."""
        return identity if self.keep_ids else self._hash(f"patient {identity}")

    def series(self, uid: str) -> str:
        """The hash of a SeriesInstanceUID, by which copies of one series are found."""
        return self._hash(f"series {uid}")

    def fingerprint(self) -> str:
        """Tells one salt from another without telling either."""
        return f"{self._hash('which salt')} {self.keep_ids}"

    def _hash(self, text: str) -> str:
        return hmac.new(self.salt, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[
            :HASH_LENGTH
        ]


def open_salt(path: Path) -> bytes:
    """The salt in a file; made there, for its owner alone (mode 0600), if there is none.

    Raises:
        InputError: it can be neither read nor made, or is no salt.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            salt = bytes.fromhex(path.read_text().strip())
        else:
            salt = secrets.token_bytes(SALT_BYTES)
            with os.fdopen(descriptor, "w") as file:
                file.write(salt.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path.name}: the salt cannot be read or made ({error.strerror}).") from error
    except ValueError:
        salt = b""
    if len(salt) != SALT_BYTES:
        raise InputError(
            f"{path.name}: is no salt of ours ({2 * SALT_BYTES} hexadecimal digits); put the one that was "
            "made with this manifest back, or delete both to hash all patients anew."
        )
    return salt

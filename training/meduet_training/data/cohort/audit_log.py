"""What was found in scans that were audited before: an interrupted or repeated audit goes on from there.

One JSON line a path, appended as soon as it is done; the last line may be cut off by a kill. A line counts as
long as the files have the size and the time of change that they had, and the audit asks the same of them.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from meduet_training.data.cohort.audit import Audit, Found
from meduet_training.data.cohort.candidates import Candidate
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.safe_open import reason

VERSION = 1  # of what an audit measures; another number lets older lines go
BESIDE = (".json", ".raw", ".zraw", ".raw.gz", ".gz")  # what may belong to a scan and lie beside it


class AuditLog:
    """The lines of earlier audits, and a place for new ones.

    Raises:
        InputError: the file cannot be read or written.
    """

    def __init__(self, path: Path, audit: Audit) -> None:
        self.path = path
        self._settings = json.dumps(
            [VERSION, audit.pseudonyms.fingerprint(), audit.profile, sorted(audit.tags)]
        )
        self._lines: dict[str, dict[str, Any]] = {}
        try:
            lines = (
                [self._understood(line) for line in path.read_text().splitlines()] if path.exists() else []
            )
            self._lines = {line["key"]: line for line in lines if line}
            with write_atomically(path, overwrite=True) as temporary:  # without what does not count any more
                temporary.write_text("".join(json.dumps(line) + "\n" for line in self._lines.values()))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path.name}: cannot be read or written ({reason(error)}).") from error

    def found_before(self, candidate: Candidate) -> list[Found] | None:
        """What was found at its path, if nothing changed there."""
        line = self._lines.get(_key(candidate))
        if line is None or line["stamp"] != _stamp(candidate.path):
            return None
        return [Found.from_json(fields) for fields in line["found"]]

    def keep(self, candidate: Candidate, found: list[Found]) -> None:
        """Append what was found now."""
        line = {
            "key": _key(candidate),
            "settings": self._settings,
            "stamp": _stamp(candidate.path),
            "found": [record.as_json() for record in found],
        }
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path.name}: cannot be written ({reason(error)}); what was audited so far is kept."
            ) from error

    def _understood(self, line: str) -> dict[str, Any] | None:
        try:
            words = json.loads(line)
            return words if words["settings"] == self._settings and words["stamp"] else None
        except (ValueError, KeyError, TypeError):  # cut off when the process was killed
            return None


def _key(candidate: Candidate) -> str:
    """The same for the same question; a hash, since paths may name patients."""
    asked = [
        os.path.realpath(candidate.path),
        candidate.volume_index,
        candidate.modality,
        candidate.patient_in_header,
        candidate.domain,
    ]
    return hashlib.sha256(json.dumps(asked).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _stamp(path: Path) -> str:
    """Number, size and newest change of the files that belong to a scan; empty where there are none."""
    if path.is_dir():
        files = [Path(parent) / name for parent, _, names in os.walk(path) for name in names]
    else:
        stem = path.with_suffix("")
        files = [path, *(stem.with_suffix(suffix) for suffix in BESIDE)]
    states = [file.stat() for file in files if file.is_file()]
    if not states:
        return ""
    newest = max(state.st_mtime_ns for state in states)
    return f"{len(states)} {sum(state.st_size for state in states)} {newest}"

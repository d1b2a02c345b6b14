"""What an audit means for a cohort: which scans are used, in which split, and what was left out and why."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meduet_training.data.cohort.audit import Found
from meduet_training.data.cohort.candidates import Candidate
from meduet_training.data.cohort.duplicates import Identity, groups_of_copies
from meduet_training.data.cohort.paths import as_written, in_utf8
from meduet_training.data.cohort.pseudonyms import Pseudonyms
from meduet_training.data.cohort.scan import Split
from meduet_training.data.cohort.scanner_tags import domain_of_tags
from meduet_training.data.cohort.splits import assign_splits, in_two_splits

WINDOW = 96  # voxels of the working grid along each axis, M-02
CLIPPED = 0.05  # of the body, M-03


@dataclass(kw_only=True)
class Entry:
    """One row of the manifest in the making."""

    candidate: Candidate
    found: Found
    path: str  # as the manifest writes it
    domain: str
    patient: str
    split: Split | None
    left_out: str | None = None
    is_alone: bool = False  # the only scan of its domain

    @property
    def voxels(self) -> int:
        """Voxels on the working grid of 1.5 mm."""
        x, y, z = self.found.working_shape or (0, 0, 0)
        return x * y * z

    @property
    def is_clipped(self) -> bool:
        return (self.found.clipped or 0.0) > CLIPPED

    @property
    def doubts(self) -> list[str]:
        """What is worth a look, one sentence each."""
        clipped = f"{self.found.clipped or 0.0:.0%} of the body is clipped."
        own = [clipped] * self.is_clipped + ["The only scan of its domain."] * self.is_alone
        return own + list(self.found.doubts)

    @property
    def is_trained_on(self) -> bool:
        """Whether a model that is shipped learns from it."""
        return self.left_out is None and self.split == "train" and self.candidate.may_train


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a person decides about a cohort.

    Attributes:
        tags: DICOM keywords that name the domain; none: the layout does.
        keep_small: use scans that a window of 96 voxels does not fit into as well.
    """

    pseudonyms: Pseudonyms
    tags: tuple[str, ...]
    test_share: float
    seed: int
    keep_small: bool


def survey(
    candidates: list[Candidate], found: list[list[Found]], rules: Rules, manifest: Path
) -> list[Entry]:
    """An entry for each scan, in the order of the candidates."""
    entries = [
        _entry(candidate, record, rules, manifest)
        for candidate, records in zip(candidates, found, strict=True)
        for record in records
    ]
    for entry in entries:
        entry.left_out = entry.found.problem or _unwritable(entry)
        if not rules.keep_small:
            entry.left_out = entry.left_out or _too_small(entry)
    _leave_copies_out(_used(entries))
    _decide_splits(_used(entries), rules)
    used = _used(entries)
    in_domain = Counter(entry.domain for entry in used)
    for entry in used:
        entry.is_alone = in_domain[entry.domain] == 1
    return entries


def as_row(entry: Entry, manifest: Path) -> dict[str, Any]:
    """The entry's row in the manifest."""
    found, candidate = entry.found, entry.candidate
    return {
        "path": entry.path,
        "series": found.series,
        "volume": candidate.volume_index,
        "patient": entry.patient,
        "domain": entry.domain,
        "modality": found.modality or candidate.modality,
        "sequence": candidate.sequence if found.modality != "CT" else None,
        "split": entry.split,
        "spacing_mm": " ".join(f"{step:.4g}" for step in found.spacing_mm or ()) or None,
        "shape": " ".join(str(size) for size in found.shape or ()) or None,
        "labels": as_written(candidate.labels, manifest) if candidate.labels else None,
        "licence": candidate.licence or None,
        "may_train": candidate.may_train,
        "clipped": None if found.clipped is None else round(found.clipped, 4),
        "sha256": found.sha256,
        "volume_hash": found.volume_hash,
        "series_hash": found.series_hash,
        "left_out": entry.left_out,
        "doubts": " ".join(entry.doubts) or None,
    }


def _entry(candidate: Candidate, found: Found, rules: Rules, manifest: Path) -> Entry:
    domain = domain_of_tags(found.tags or {}, rules.tags) if rules.tags else candidate.domain
    if found.modality == "MR" and candidate.sequence:
        domain = f"{domain}-{candidate.sequence}"  # sequences of one site look less alike than sites do
    return Entry(
        candidate=candidate,
        found=found,
        path=as_written(candidate.path, manifest),
        domain=in_utf8(domain),
        patient=found.patient or rules.pseudonyms.patient(candidate.patient),
        split=candidate.split,
    )


def _used(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.left_out is None]


def _unwritable(entry: Entry) -> str | None:
    paths = (entry.candidate.path, entry.candidate.labels or Path())
    if all(str(path) == in_utf8(str(path)) for path in paths):
        return None
    return "The names of file and folders, or of its labels, are no UTF-8, which a table needs; rename them."


def _too_small(entry: Entry) -> str | None:
    shape = entry.found.working_shape or (0, 0, 0)
    if min(shape) >= WINDOW:
        return None
    return (
        f"Too small: {' x '.join(map(str, shape))} voxels at 1.5 mm; a window has {WINDOW} along each axis."
    )


def _leave_copies_out(entries: list[Entry]) -> None:
    """Of several copies one is used; the patients that they are under become one.

    Kept is what somebody chose for testing, so that nothing of it is trained on; then what has labels.
    """
    identities = [
        Identity(
            path=entry.path,
            part=f"{entry.found.series} {entry.candidate.volume_index}",
            patient=entry.patient,
            sha256=f"{entry.found.sha256} {entry.candidate.volume_index}",
            series_hash=entry.found.series_hash,
            volume_hash=entry.found.volume_hash,
        )
        for entry in entries
    ]
    names: dict[str, str] = {}
    for group in groups_of_copies(identities):
        copies = sorted(
            (entries[number] for number in group),
            key=lambda entry: (entry.split != "test", entry.candidate.labels is None, entry.path),
        )
        kept, *others = copies
        for other in others:
            same = other.found.series_hash is not None and other.found.series_hash == kept.found.series_hash
            how = "the same SeriesInstanceUID" if same else "the same image"
            other.left_out = f"A copy of {kept.path} ({how})."
        names |= {_of(names, other.patient): _of(names, kept.patient) for other in others}
    for entry in entries:
        entry.patient = _of(names, entry.patient)


def _of(names: dict[str, str], patient: str) -> str:
    """The name that a patient goes by after some became one."""
    while names.get(patient, patient) != patient:
        patient = names[patient]
    return patient


def _decide_splits(entries: list[Entry], rules: Rules) -> None:
    """Keep to the splits that were given, where a patient is in one; assign the others."""
    both = in_two_splits([entry.patient for entry in entries], [entry.split for entry in entries])
    for entry in entries:
        if entry.patient in both and entry.split != "test":
            entry.left_out = "Its patient is in the test split as well."
    used = _used(entries)
    splits = assign_splits(
        [entry.patient for entry in used],
        [entry.domain for entry in used],
        [entry.split for entry in used],
        test_share=rules.test_share,
        seed=rules.seed,
    )
    for entry, split in zip(used, splits, strict=True):
        entry.split = split

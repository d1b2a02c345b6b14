"""Scans that are in a cohort twice: the same series from two sources, or the same image saved anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from meduet_training.data.cohort.fingerprint import OTHER_PATIENT, SAME_PATIENT, distances, unpacked

ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Identity:
    """By what a copy of a scan is known."""

    path: str
    part: str  # which series of a folder, which volume of a file
    patient: str
    sha256: str | None
    series_hash: str | None
    volume_hash: str | None


def groups_of_copies(scans: Sequence[Identity]) -> list[list[int]]:
    """The numbers of scans that are copies of each other, two or more to a group.

    Parts of one file or DICOM folder are never taken for copies: they are its phases or channels.
    """
    pairs = _of_one_word([scan.sha256 for scan in scans]) | _of_one_word([scan.series_hash for scan in scans])
    pairs |= _of_one_image(scans)
    pairs = {(a, b) for a, b in pairs if scans[a].path != scans[b].path or scans[a].part == scans[b].part}
    if not pairs:
        return []
    ends = np.array(sorted(pairs)).T
    links = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(scans),) * 2)
    _, labels = connected_components(links, directed=False)
    groups: dict[int, list[int]] = {}
    for number, label in enumerate(labels):
        groups.setdefault(int(label), []).append(number)
    return [group for group in groups.values() if len(group) > 1]


def _of_one_word(words: Sequence[str | None]) -> set[tuple[int, int]]:
    """All pairs of scans with the same word."""
    holders: dict[str, list[int]] = {}
    for number, word in enumerate(words):
        if word is not None:
            holders.setdefault(word, []).append(number)
    return {pair for numbers in holders.values() for pair in combinations(numbers, 2)}


def _of_one_image(scans: Sequence[Identity]) -> set[tuple[int, int]]:
    """Pairs of scans whose hashes are near."""
    hashed = [number for number, scan in enumerate(scans) if scan.volume_hash]
    if len(hashed) < 2:
        return set()
    bits = np.stack([unpacked(scans[number].volume_hash or "") for number in hashed]).astype(np.float32)
    _, patients = np.unique([scans[number].patient for number in hashed], return_inverse=True)
    pairs = set()
    for start in range(0, len(hashed), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        limit = np.where(patients[part, None] == patients[None], SAME_PATIENT, OTHER_PATIENT)
        ones, others = np.nonzero(distances(bits[part], bits) < limit)
        pairs |= {(hashed[start + a], hashed[b]) for a, b in zip(ones, others, strict=True) if start + a < b}
    return pairs

"""What the numbers in label files mean, scan by scan (specification, section 10).

An `index.json` says it for each scan, the dataset.json of nnU-Net and of the Medical Segmentation Decathlon
for all scans beside it, and for any list of scans a file of names may. Which of the names a training tells
apart is task.py's business.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from meduet_training.data.cohort.community_layouts import DATASET
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import INDEX, index_records
from napari_meduet.errors import InputError

BACKGROUND = "background"
IGNORE = "ignore"  # what nnU-Net calls voxels where nobody looked
Names = dict[int, str]  # of the labels from 1 up; empty where nobody names them


def label_names(scans: Path, cohort: Sequence[Scan], names: Path | None = None) -> dict[Path, Names]:
    """The names of the labels in each label file of a cohort.

    Args:
        scans: the list that the cohort was read from.
        names: YAML or JSON that names the labels of all scans, as `read_names` reads it; it goes before what
            lies beside the scans.

    Raises:
        InputError: a description is no such thing, or gives one number two names.
    """
    files = sorted({scan.labels_path for scan in cohort if scan.labels_path is not None})
    if names is not None:
        return dict.fromkeys(files, read_names(names))
    of_index = _of_index(scans)
    described: dict[Path, Names] = {}  # by dataset
    for path in files:
        dataset = path.parent.parent / DATASET
        if path not in of_index and dataset not in described:
            described[dataset] = read_names(dataset) if dataset.is_file() else {}
    return {path: of_index.get(path, described.get(path.parent.parent / DATASET, {})) for path in files}


def read_names(path: Path) -> Names:
    """What a YAML or JSON file calls the labels: number to name, name to number, or a dataset.json.

    A name may have several numbers, as nnU-Net's regions do. Where regions lie in each other, a number is
    called after the smallest that holds it, so each voxel has one class.

    Raises:
        InputError: it cannot be read, or gives one number two names.
    """
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path.name}: the names of labels cannot be read; give YAML or JSON.") from error
    if isinstance(said, Mapping) and isinstance(said.get("labels"), Mapping):
        said = said["labels"]
    if not isinstance(said, Mapping):
        raise InputError(f"{path.name}: names no labels; write lines such as `1: liver`, or `liver: 1`.")
    return names_in(said, path.name)


def names_in(said: Mapping[Any, Any], where: str) -> Names:
    """The name of each number from 1 up, whichever way round they are written.

    Raises:
        InputError: an entry is neither number and name nor name and numbers, or a number has two names.
    """
    found: dict[int, tuple[int, str]] = {}  # how many numbers share the name, and the name
    for one, other in said.items():
        name, numbers = _entry(one, other, where)
        for number in numbers:
            size, before = found.get(number, (len(numbers) + 1, name))
            if size == len(numbers) and before != name:
                raise InputError(
                    f"{where}: label {number} is called both {before} and {name}; give each number one name."
                )
            if len(numbers) < size:
                found[number] = len(numbers), name
    return {number: name for number, (_, name) in sorted(found.items()) if number != 0}


def _entry(one: Any, other: Any, where: str) -> tuple[str, list[int]]:
    """Name and numbers of an entry."""
    if (number := _number(one)) is not None and isinstance(other, str) and _number(other) is None:
        return other, [number]
    numbers = [_number(each) for each in (other if isinstance(other, list) else [other])]
    if isinstance(one, str) and numbers and None not in numbers:
        return one, [number for number in numbers if number is not None]
    raise InputError(
        f"{where}: labels: {json.dumps({str(one): other}, default=str)} is neither a number with a name nor "
        "a name with numbers; write `1: liver`, or `liver: 1`."
    )


def _number(said: Any) -> int | None:
    """A label's number, 0 or more; None where it is none."""
    if isinstance(said, bool) or not isinstance(said, int | str) or not str(said).isdecimal():
        return None
    return int(said)


def _of_index(scans: Path) -> dict[Path, Names]:
    """What an `index.json` says, where the list is one."""
    if not (scans / INDEX).is_file():
        return {}
    named = {}
    for number, record in enumerate(index_records(scans), start=1):
        if record.get("seg_path") and isinstance(record.get("labels"), Mapping):
            where = f"{scans.name}/{INDEX}: record {number}"
            named[scans / record["seg_path"]] = names_in(record["labels"], where)
    return named

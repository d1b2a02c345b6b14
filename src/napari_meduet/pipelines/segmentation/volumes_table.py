"""The volumes of many segmentations in one table, for a spreadsheet."""

import csv
import json
from pathlib import Path

from napari_meduet.volumes.files import write_atomically

TABLE_NAME = "volumes_ml.csv"


def write_volumes_table(folder: Path) -> Path:
    """Write `volumes_ml.csv`: a row for every segmentation in a folder, a column for every structure, in mL.

    What a segmenter did not know stays empty. A table that was there is replaced: it holds nothing that the
    sidecars do not.

    Raises:
        InputError: it cannot be written.
    """
    volumes: dict[str, dict[str, float]] = {}
    for sidecar in sorted(folder.glob("*.json")):
        record = _record(sidecar)
        if record.get("kind") == "segmentation":
            amounts = record.get("volumes_ml", {})
            volumes[sidecar.stem] = {name: amounts[label] for label, name in record["labels"].items()}
    names = list(dict.fromkeys(name for amounts in volumes.values() for name in amounts))
    path = folder / TABLE_NAME
    with write_atomically(path, overwrite=True) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, ["segmentation", *names])
        table.writeheader()
        for segmentation, amounts in volumes.items():
            table.writerow({"segmentation": segmentation, **{n: f"{ml:.3f}" for n, ml in amounts.items()}})
    return path


def _record(sidecar: Path) -> dict:
    """What a sidecar says; nothing where it is no JSON object."""
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}

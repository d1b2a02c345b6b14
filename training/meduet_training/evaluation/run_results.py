"""What a run measured at its end, on scans that it neither learnt from nor was chosen by."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meduet_training.evaluation.sections import Part
from napari_meduet.volumes.files import write_atomically

RESULTS, RESULTS_TABLE = "results.json", "results.md"


def write_results(folder: Path, table: Part, scans: Sequence[Mapping[str, Any]]) -> None:
    """Keep the table in a run's folder, for people and, with each scan, for programs."""
    words = json.dumps(table.as_data() | {"scans": list(scans)}, indent=2) + "\n"
    for name, text in ((RESULTS, words), (RESULTS_TABLE, table.as_markdown())):
        with write_atomically(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")

"""Metrics of a finished run on the test split, in `results.json` and `results.md` of its folder.

The scans of the test split were used neither for training nor for validation.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meduet_training.evaluation.sections import EvaluationSection, write_json_and_markdown

STEM = "results"
RESULTS, RESULTS_TABLE = f"{STEM}.json", f"{STEM}.md"


def write_results(folder: Path, section: EvaluationSection, scans: Sequence[Mapping[str, Any]]) -> None:
    """Write the metrics, and the results of each scan, into the folder of a run."""
    data = section.as_data() | {"scans": list(scans)}
    write_json_and_markdown(folder, STEM, data, section.as_markdown(), allow_nan=True)


def read_metrics(folder: Path) -> dict[str, float]:
    """Return the value of each metric of a finished run, by name."""
    metrics = json.loads((folder / RESULTS).read_text(encoding="utf-8"))["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics}

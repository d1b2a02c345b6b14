"""Configuration of the training of a classifier.

    data: {model: MODEL_FOLDER, scans: manifest.csv, target: diagnosis, classes: [benign, malignant]}

`finetuning/config.py` holds the sections that all fine-tuning tasks share.
"""

from pathlib import Path

from pydantic import Field

from meduet_training.tasks.finetuning.config import FinetuningData, FinetuningRun


class ClassifierData(FinetuningData):
    """Data of a classifier.

    Attributes:
        target: column of the list that holds the class of each scan, or domain, modality or sequence.
        classes: use only these classes; empty: all.
    """

    cache_dir: Path = Path("caches/factors")
    target: str = Field(min_length=1)
    classes: tuple[str, ...] = ()


class ClassifierRun(FinetuningRun):
    """Configuration of a classifier run."""

    data: ClassifierData

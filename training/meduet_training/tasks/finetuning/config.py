"""Configuration sections that all fine-tuning tasks share.

preset: tiny                  # where `training` starts from: tiny or paper
start: meduet                 # initial weights: those of the model's encoder, or `scratch`
styles: auto                  # how many crops are shown in other styles (Table 12)
data: {model: MODEL_FOLDER, scans: FOLDER}
training: {batch: 4, objective: {total_steps: 10000}}
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, with_config

from meduet_training.tasks.choices import FinetuningPreset, FinetuningStart, Styles
from meduet_training.tasks.config import RunConfig
from napari_meduet.core.analysis.style_augmentation import ALL, HALF, ONE_SHOT, TENTH, StyleAugmentation
from napari_meduet.volumes.modality import Modality

COLUMNS = {"one-shot": ONE_SHOT, "tenth": TENTH, "half": HALF, "all": ALL}  # of Table 12

with_config(ConfigDict(extra="forbid"))(StyleAugmentation)


class FinetuningData(BaseModel):
    """Data of a fine-tuning.

    Attributes:
        model: model folder; it provides the tokenizer, the styles and the initial weights.
        scans: manifest, or folder of scans with an index.json, or an nnU-Net or MSD dataset.
        cache_dir: cache directory for encoded scans.
        modality: use only scans of this modality. None: both.
        unseen: domains whose scans are the test split; nothing is learnt from them (requested_scans.py).
        patients: hashes of the patients whose labels are used. None: all patients.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    scans: Path
    cache_dir: Path = Path("caches/examples")
    modality: Modality | None = None
    unseen: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None


class FinetuningRun(RunConfig):
    """Configuration of a fine-tuning run.

    Attributes:
        styles: column of Table 12; `auto` chooses it by the number of labelled scans.
        patience: number of validations without improvement after which the run ends; 0: it never ends early.
    """

    preset: FinetuningPreset = "tiny"
    start: FinetuningStart = "meduet"
    styles: Styles = "auto"
    patience: int = Field(default=8, ge=0)
    data: FinetuningData

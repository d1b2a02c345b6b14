"""What every fine-tuning was asked to do: the part that the YAML files of all tasks share.

preset: tiny                  # where `training` starts from: tiny or paper
start: meduet                 # from the model's encoder, or from scratch
styles: auto                  # how much is learnt in other styles (Table 12)
data: {model: MODEL_FOLDER, scans: FOLDER}
training: {batch: 4, objective: {total_steps: 10000}}
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, with_config

from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.runtime.fabric import Hardware
from meduet_training.tasks.config import merged, validated
from napari_meduet.core.analysis.style_augmentation import ALL, HALF, ONE_SHOT, TENTH, StyleAugmentation
from napari_meduet.volumes.volume import Modality

Styles = Literal["auto", "one-shot", "tenth", "half", "all", "off"]
COLUMNS = {"one-shot": ONE_SHOT, "tenth": TENTH, "half": HALF, "all": ALL}  # of Table 12

with_config(ConfigDict(extra="forbid"))(StyleAugmentation)


class FinetuningData(BaseModel):
    """What is learnt from.

    Attributes:
        model: the folder of a model; it gives latents, styles and the start.
        scans: a manifest, a folder of scans with an index.json, or one of nnU-Net or MSD.
        cache_dir: where encoded scans are kept, so that they are computed once.
        modality: scans of this one alone; None: of all.
        unseen: domains whose scans are the test, and are not learnt from (requested_scans.py).
        patients: hashes of those whose labels are learnt; None: of all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    scans: Path
    cache_dir: Path = Path("caches/examples")
    modality: Modality | None = None
    unseen: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None


class FinetuningRun(BaseModel):
    """A whole run. `training` decides what is learnt, the others how and where.

    Attributes:
        styles: the column of Table 12; `auto` is that of the number of labelled scans.
        patience: so many validations in a row may bring nothing before the run ends; 0: it never ends early.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["tiny", "paper"] = "tiny"
    start: Literal["meduet", "scratch"] = "meduet"
    styles: Styles = "auto"
    patience: int = Field(default=8, ge=0)
    data: FinetuningData
    training: TrainingConfig
    hardware: Hardware = Hardware()
    upkeep: TrainerOptions = TrainerOptions()


def finetuning_of(
    said: Mapping[str, Any],
    presets: Mapping[str, Callable[[], TrainingConfig]],
    objective: type,
    network: type,
) -> Any:
    """The preset's training with what was said over it; what makes no sense is left for the schema.

    Args:
        objective, network: the schemas of the two.
    """
    preset, changes = said.get("preset", "tiny"), said.get("training", {})
    if str(preset) not in presets or not isinstance(changes, Mapping):
        return changes
    whole = merged(asdict(presets[preset]()), changes)
    whole["objective"] = validated(objective, whole["objective"], ("training", "objective"))
    whole["network"] = validated(network, whole["network"], ("training", "network"))
    return whole

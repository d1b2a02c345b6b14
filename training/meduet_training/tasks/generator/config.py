"""Configuration of the training of a generator.

preset: small                 # where `training` starts from: tiny, small or paper
start: warm                   # initial weights: those of the model's encoder, or `scratch`
data: {model: MODEL_FOLDER, scans: manifest.csv}
training: {batch: 32}
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from meduet_training.tasks.choices import GeneratorPreset, GeneratorStart
from meduet_training.tasks.config import RunConfig


class GeneratorData(BaseModel):
    """Data of a generator or of a ControlNet.

    Attributes:
        model: model folder; it provides latents, factors and, for a warm start, the initial weights.
        scans: manifest, or folder of scans with an index.json.
        cache_dir: cache directory for latents and factors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    scans: Path
    cache_dir: Path = Path("caches/factors")


class GeneratorRun(RunConfig):
    """Configuration of a generator run."""

    preset: GeneratorPreset = "tiny"
    start: GeneratorStart = "warm"
    data: GeneratorData

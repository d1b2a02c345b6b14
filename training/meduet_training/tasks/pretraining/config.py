"""Configuration of a pretraining.

preset: tiny                  # where `training` starts from: tiny, small or base
data: {cache: latents, tokenizer: tokenizer}
training: {batch: 16, objective: {pairing: random}}
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from meduet_training.tasks.choices import ObjectiveVersion, Pretext, PretrainingPreset
from meduet_training.tasks.config import RunConfig
from napari_meduet.core.options import CtProfileName

ON_VOXELS = "mdae-voxel"  # the pretext that reads scans instead of latents
ONE_SOURCE = (
    "Give one of --cache (latents of meduet-cache), --windows (a file of latent windows) or --data (scans, "
    "from which windows are made)."
)


class PretrainingData(BaseModel):
    """Data of a pretraining: exactly one of `cache`, `windows` and `scans`.

    Attributes:
        cache: folder that `meduet-cache` filled.
        windows: file of latent windows.
        scans: manifest, or folder of scans with an index.json. Windows, or for `mdae-voxel` prepared scans,
            are made from them in `cache_dir`.
        tokenizer: tokenizer that wrote the latents. The run stores a copy for its model.
        ct_profile: intensity profile for CT, for windows or voxels made from `scans`. None: the profile of
            the tokenizer. Latents that exist already have a profile.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache: Path | None = None
    windows: Path | None = None
    scans: Path | None = None
    tokenizer: Path | None = None
    cache_dir: Path = Path("caches/pretrain")
    ct_profile: CtProfileName | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> "PretrainingData":
        if sum(path is not None for path in (self.cache, self.windows, self.scans)) != 1:
            raise ValueError(ONE_SOURCE)
        return self


class PretrainingRun(RunConfig):
    """Configuration of a pretraining run.

    Attributes:
        preset, objective: what `training` started from; stored for the reader.
        pretext: what the network is trained to do.
        data: None is enough for a plan.
    """

    preset: PretrainingPreset = "tiny"
    objective: ObjectiveVersion = "corrected"
    pretext: Pretext = "meduet"
    data: PretrainingData | None = None

    @model_validator(mode="after")
    def _check_data_of_pretext(self) -> "PretrainingRun":
        data = self.data
        if self.pretext == ON_VOXELS:
            if data and (data.scans is None or data.tokenizer is not None):
                raise ValueError(
                    f"The pretext {ON_VOXELS} learns from scans, not from latents: give --data, a manifest "
                    "or a folder with an index.json, and no --tokenizer."
                )
        elif data and data.tokenizer is None:
            raise ValueError("Give --tokenizer, which wrote the latents: it becomes part of the model.")
        return self

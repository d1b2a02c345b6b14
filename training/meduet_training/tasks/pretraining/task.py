"""Declaration of the pretraining task. Its schemas depend on the pretext; export.py has its export."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict, with_config

from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.pretraining.config import ON_VOXELS, PretrainingRun
from meduet_training.tasks.pretraining.presets import PRESETS, VOXEL_NETWORKS, with_objective_of_the_paper
from meduet_training.tasks.task import Task
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.pretexts.masked import MaskedConfig
from napari_meduet.core.pretexts.masked_diffusion import MaskedDiffusionConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig

PRETEXTS = {
    "meduet": ObjectiveConfig,
    "mae": MaskedConfig,
    "mdae": MaskedDiffusionConfig,
    ON_VOXELS: MaskedDiffusionConfig,
}

for _schema in (MaskedConfig, MaskedDiffusionConfig, ResidualUNetConfig):
    with_config(ConfigDict(extra="forbid"))(_schema)


class PretrainingTask(Task[PretrainingRun]):
    """A task whose preset also depends on the pretext and on the version of the objective."""

    def start(self, request: Mapping[str, Any]) -> TrainingConfig | None:
        pretext = str(request.get("pretext", "meduet"))
        start = super().start(request)
        if start is None or pretext not in PRETEXTS:
            return None
        if request.get("objective") == "paper":
            start = with_objective_of_the_paper(start)
        if pretext != "meduet":
            objective = PRETEXTS[pretext](total_steps=start.total_steps)
            start = replace(start, objective=objective, linear_start=False)
        if pretext == ON_VOXELS:
            start = replace(start, network=VOXEL_NETWORKS[request.get("preset", "tiny")])
        return start


PRETRAINING = PretrainingTask(
    name="pretrained network",
    run=PretrainingRun,
    presets=PRESETS,
    objective=ObjectiveConfig,
    network=MeDUETConfig,
)

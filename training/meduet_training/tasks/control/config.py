"""Configuration of the training of a ControlNet.

    data: {model: MODEL_FOLDER, scans: FOLDER}
    training: {batch: 8, objective: {total_steps: 20000}}

The network is that of the model's generator, and the classes are those of the labels, so neither is given.
"""

from meduet_training.tasks.config import RunConfig
from meduet_training.tasks.generator.config import GeneratorData


class ControlRun(RunConfig):
    """Configuration of a ControlNet run."""

    data: GeneratorData

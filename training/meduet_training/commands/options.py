"""Options that several commands share. This module does not import torch, so that `--help` opens at once.

An option that is None keeps the value of the configuration file or of the preset.
"""

from pathlib import Path
from typing import Annotated

import typer

from meduet_training.jobs.choices import ExecutorChoice
from meduet_training.runtime.choices import Device
from napari_meduet.volumes.modality import Modality

EMBEDDED_MODEL = Path("src/napari_meduet/models/demo")
SHARED_DATA = Path("../shared/data")

RunFolderOption = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
RunFolderArgument = Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")]
ConfigOption = Annotated[
    Path | None, typer.Option(help="YAML configuration file. Other options have precedence over it.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set one value of the configuration, for example training.clip=0.5. May be repeated.",
    ),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Scans: a manifest, or a folder with an index.json.")
]
LabelledDataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Labelled scans: a manifest, or a folder with an index.json or an nnU-Net dataset.json.",
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", help="Model folder. It provides the tokenizer, the factors and initial weights."),
]
CacheDirOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Cache directory for encoded scans. Default: a folder below caches/."),
]
LabelNamesOption = Annotated[
    Path | None,
    typer.Option("--names", help="YAML or JSON file with the names of the labels, if the data have none."),
]
ModalityOption = Annotated[
    Modality | None, typer.Option("--modality", help="Use only scans of this modality. Default: both.")
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Device for the computation. auto chooses a GPU if there is one.")
]
RunDeviceOption = Annotated[
    Device | None,
    typer.Option("--device", help="Device for the training. Default: auto, a GPU if there is one."),
]
StepsOption = Annotated[
    int | None, typer.Option("--steps", help="Number of training steps. Default: that of the preset.")
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch", help="Volumes in each step, summed over all processes. Default: that of the preset."
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

# Options of a job: `jobs submit` and `launch start`.
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Name of a job, as `submit` or `launch` printed it.")
]
ExecutorOption = Annotated[
    ExecutorChoice,
    typer.Option("--executor", help="Where the job runs. auto uses SLURM if the machine has it."),
]
GpusOption = Annotated[int, typer.Option("--gpus", help="Number of GPUs on each node. 0 trains on the CPUs.")]
NodesOption = Annotated[int, typer.Option("--nodes", help="Number of nodes, only for SLURM.")]
HoursOption = Annotated[
    float | None,
    typer.Option(
        "--hours",
        help="Time limit of an attempt in hours, only for SLURM. The job continues in the next attempt. "
        "Default: the limit of the partition.",
    ),
]
PartitionOption = Annotated[
    str | None,
    typer.Option("--partition", help="Partition, only for SLURM. Default: the cluster's default partition."),
]
SbatchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="NAME=VALUE",
        help="Any other option of sbatch, by its long name, for example mem=64G. May be repeated.",
    ),
]

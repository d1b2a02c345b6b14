"""Configurations of the fine-tuning objectives: fields that one task adds (specification, section 10).

`core/analysis/finetuning.py` holds the shared fields and the losses.
"""

from dataclasses import dataclass

from napari_meduet.core.analysis.finetuning import FinetuningConfig
from napari_meduet.volumes.modality import Modality


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FinetuningConfig):
    """How a segmenter is trained.

    Attributes:
        labels: number of each class in the label map that the segmenter writes; the background is first.
        names: names of the classes, in the same order.
        modalities: modalities of the scans in the training.
        sequences: MR sequences of a patient that the segmenter reads together; empty if it reads one scan.
    """

    labels: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ("background",)
    modalities: tuple[Modality, ...] = ()
    sequences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.labels) != len(self.names):
            raise ValueError(
                f"labels and names must have the same length; got {self.labels} and {self.names}."
            )


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(FinetuningConfig):
    """How a classifier is trained.

    Attributes:
        target: column that holds the class of each scan.
        classes: names of the classes, in the order of the network's outputs.
        num_scans: number of training scans of each class.
        modalities: modalities of the scans in the training.
    """

    target: str = ""
    classes: tuple[str, ...] = ()
    num_scans: tuple[int, ...] = ()
    modalities: tuple[Modality, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) != len(self.num_scans):
            raise ValueError(
                f"classes and num_scans must have the same length; got {self.classes} and {self.num_scans}."
            )

"""How each task is learnt from few labels: what its objective needs beside the rest (specification, section 10)."""

from dataclasses import dataclass

from napari_meduet.core.analysis.finetuning import FinetuningConfig
from napari_meduet.volumes.volume import Modality


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(FinetuningConfig):
    """How a segmenter is trained.

    Attributes:
        labels: the number of each class in what it writes, that of the background first.
        names: of the classes, in the same order.
        modalities: of the scans it learns from.
        sequences: of the scans of a patient that it reads together; none where it reads one.
    """

    labels: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ("background",)
    modalities: tuple[Modality, ...] = ()
    sequences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.labels) != len(self.names):
            raise ValueError(f"labels and names are of the same classes; got {self.labels} and {self.names}.")


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(FinetuningConfig):
    """How a classifier is trained.

    Attributes:
        target: what it tells: the column that holds the class of each scan.
        classes: their names, in the order of its outputs.
        num_scans: of each class, that are learnt from.
        modalities: of the scans it learns from.
    """

    target: str = ""
    classes: tuple[str, ...] = ()
    num_scans: tuple[int, ...] = ()
    modalities: tuple[Modality, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) != len(self.num_scans):
            raise ValueError(
                f"classes and num_scans are of the same classes; got {self.classes} and {self.num_scans}."
            )

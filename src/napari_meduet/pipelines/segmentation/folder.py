"""Every scan of a folder, segmented into files of another; one that fails does not stop the others."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.pipelines.common.outputs import check_output
from napari_meduet.pipelines.common.progress import null_progress, part
from napari_meduet.pipelines.requests import ScanChoice
from napari_meduet.volumes.dicom_frames import looks_like_dicom
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.safe_open import reason
from napari_meduet.volumes.volume import Volume

if TYPE_CHECKING:
    from napari_meduet.pipelines.segmentation.session import SegmentationResult

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
OUTPUT_SUFFIX = "_segmentation.nii.gz"
ANY_SCAN = ScanChoice()
_DICOM_PREAMBLE = 140  # bytes that tell


@dataclass(frozen=True)
class FolderReport:
    """What became of each scan.

    Attributes:
        written: files of labels.
        skipped: scans whose labels were there already.
        failed: name of each scan without labels, and the sentence that says why.
    """

    written: tuple[Path, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]


def segment_folder(
    segment: Callable[[Volume, OnProgress], "SegmentationResult"],
    folder: Path,
    target: Path,
    on_progress: OnProgress = null_progress,
    choice: ScanChoice = ANY_SCAN,
) -> FolderReport:
    """Segment the NIfTI, NRRD and MetaImage files in a folder, and each DICOM folder in it.

    Labels of `NAME.nii.gz` are written as `NAME_segmentation.nii.gz`, with a sidecar; none is replaced.

    Args:
        segment: the labels of one scan.
        target: made where it is missing.
        choice: what is said of every one of the scans.

    Raises:
        InputError: there is no scan in the folder, or the target cannot be written to.
    """
    scans = scans_in(folder)
    if not scans:
        raise InputError(
            f"{folder.name}: this folder holds no scan: no NIfTI, NRRD or MetaImage file, no DICOM folder."
        )
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{target.name}: no folder can be made there ({reason(error)}).") from error
    check_output(target / f"any{OUTPUT_SUFFIX}", ".nii.gz", overwrite=True)
    written, skipped, failed = [], [], {}
    for number, (name, path) in enumerate(scans):
        stage = part(on_progress, number / len(scans), (number + 1) / len(scans))
        output = target / f"{name}{OUTPUT_SUFFIX}"
        if output.exists():
            skipped.append(path.name)
            continue
        try:
            stage(0.0, f"reading scan {number + 1} of {len(scans)}")
            scan = read_volume(
                path, volume_index=choice.volume_index, series=choice.series, modality=choice.modality
            )
            result = segment(scan, stage)
            result.save(output)
        except (InputError, MemoryError) as error:
            failed[path.name] = str(error) or "There is not enough memory for this scan."
        else:
            written.append(output)
    on_progress(1.0, "done")
    return FolderReport(tuple(written), tuple(skipped), failed)


def scans_in(folder: Path) -> list[tuple[str, Path]]:
    """What to call each scan in a folder, and where it is; labels that were written there are none.

    Scans whose names differ in their ending alone keep it.
    """
    found = []
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SCAN_SUFFIXES if path.name.lower().endswith(suffix)), None)
        if path.is_file() and suffix and not path.name.endswith(OUTPUT_SUFFIX):
            found.append((path.name[: -len(suffix)], path))
        elif path.is_dir() and _is_dicom(path):
            found.append((path.name, path))
    times = Counter(name for name, _ in found)
    return [(name if times[name] == 1 else path.name, path) for name, path in found]


def _is_dicom(folder: Path) -> bool:
    first = next((path for path in sorted(folder.iterdir()) if path.is_file()), None)
    if first is None:
        return False
    with first.open("rb") as file:
        return looks_like_dicom(file.read(_DICOM_PREAMBLE))

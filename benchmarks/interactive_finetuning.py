"""Measure interactive fine-tuning: the time from two painted scans to an overlay on a third, and its Dice.

    python benchmarks/interactive_finetuning.py [--data ../shared/data] [--task tumour] [--steps 300]

The script does what the Teach page of napari does, without a window. It simulates a user who paints. On a few
axial slices of two scans of the train split, structures are painted according to their labels, and the rest
of the slice as background. All other slices are unknown. Then the embedded model is fine-tuned, and segments
scans of the test split, which have manual labels. The tasks are:

    lungs   a torso with given labels, and a chest painted with the fill tool (its air); test on two chests
    tumour  two thighs; test on a third

Goal: at most 5 minutes from Train to the overlay on a third scan, on two cores. The script prints wall time,
which other work on the machine changes, and processor time. With `--threads 1`, the processor time equals the
wall time on an idle core.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from helpers.scans import data_folder

from meduet_training.data.cohort.scans import index_records
from meduet_training.evaluation.metrics.overlap import overlap
from meduet_training.evaluation.segmentation.threshold_baseline import threshold_lungs
from napari_meduet.pipelines import read_volume
from napari_meduet.pipelines.requests import TeachRequest
from napari_meduet.pipelines.segmentation.finetuned import TaughtSoFar
from napari_meduet.pipelines.segmentation.finetuning import teach
from napari_meduet.volumes.volume import Volume

GOAL_S = 300.0
BACKGROUND = 9  # label of the background strokes
LUNGS = {1: "lung_left", 2: "lung_right"}


@dataclass(frozen=True)
class Task:
    """A fine-tuning task.

    Attributes:
        structures: names of the structures by their class numbers.
        train: class number of each label name, for each scan. None: lungs, labelled by a threshold.
        test: scans with manual labels.
    """

    structures: Mapping[int, str]
    train: Mapping[str, Mapping[str, int] | None]
    test: tuple[str, ...]


TASKS = {
    "lungs": Task(
        structures=LUNGS,
        train={
            "ts_example": {
                "lung_upper_lobe_left": 1,
                "lung_lower_lobe_left": 1,
                "lung_upper_lobe_right": 2,
                "lung_lower_lobe_right": 2,
            },
            "acrin013": None,
        },
        test=("lung1_001", "lung1_002"),
    ),
    "tumour": Task(
        structures={1: "gtv_mass"},
        train={"sts_001": {"gtv_mass": 1}, "sts_004": {"gtv_mass": 1}},
        test=("sts_014",),
    ),
}


class Scans:
    """The scans and labels of an index.json, by case."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records = {record["case"]: record for record in index_records(folder)}

    def scan(self, case: str) -> Volume:
        """Return the scan of a case."""
        return read_volume(self._folder / self._records[case]["path"], modality="CT")

    def labels(self, case: str, numbers: Mapping[str, int]) -> np.ndarray:
        """Return the labels of a case on the voxels of its scan. Structures without a number are 0."""
        record = self._records[case]
        given = read_volume(self._folder / record["seg_path"], modality="MR").voxels
        labels = np.zeros(given.shape, np.uint8)
        for label, name in record["labels"].items():
            if name in numbers:
                labels[given == int(label)] = numbers[name]
        return labels

    def split(self, case: str) -> str:
        """Return the split of a case: train or test."""
        return self._records[case]["split"]


def paint_strokes(scan: Volume, labels: np.ndarray, num_slices: int) -> np.ndarray:
    """Return strokes on a few axial slices that are evenly spaced over the structures; the rest is 0."""
    codes = nib.aff2axcodes(scan.affine)
    axial = next(axis for axis, code in enumerate(codes) if code in "SI")
    across = np.moveaxis(labels, axial, 0)
    labelled = np.flatnonzero(across.any(axis=(1, 2)))
    positions = np.linspace(0, len(labelled) - 1, num_slices + 2)[1:-1]  # without the ends, which show little
    strokes = np.zeros_like(across)
    for index in np.unique(labelled[np.rint(positions).astype(int)]):
        strokes[index] = np.where(across[index] == 0, BACKGROUND, across[index])
    return np.moveaxis(strokes, 0, axial)


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    task, scans = TASKS[options.task], Scans(options.data)
    samples = []
    for case, numbers in task.train.items():
        assert scans.split(case) == "train"
        scan = scans.scan(case)
        labels = threshold_lungs(scan) if numbers is None else scans.labels(case, numbers)
        strokes = paint_strokes(scan, labels, options.slices)
        fraction = np.count_nonzero(strokes) / strokes.size
        print(f"{case}: {options.slices} axial slices painted, {fraction:.1%} of the voxels")
        samples.append((scan, strokes))

    def print_point(point: TaughtSoFar) -> None:
        if point.step % 50 == 0:
            dice = "" if point.dice is None else f", Dice in the training scans {point.dice:.3f}"
            print(f"  step {point.step}, {point.seconds:.0f} s: loss {point.loss:.3f}{dice}", flush=True)

    start = time.monotonic(), time.process_time()
    request = TeachRequest(
        samples, dict(task.structures), background=BACKGROUND, steps=options.steps, model=options.model
    )
    finetuned = teach(request, on_curve=print_point)
    print(f"{finetuned.steps} steps, {options.threads} threads: {elapsed(*start)}")
    for number, case in enumerate(task.test):
        assert scans.split(case) == "test"
        scan = scans.scan(case)
        result = finetuned.segment(scan, largest_parts=options.largest_parts)
        if number == 0:
            print(f"from Train to the overlay: {elapsed(*start)}")
        truth = scans.labels(case, {name: number for number, name in task.structures.items()})
        scores = ", ".join(
            f"{name} {overlap(result.labels == number, truth == number, scan.spacing_mm).dice:.3f}"
            for number, name in task.structures.items()
        )
        print(f"{case} {'x'.join(map(str, scan.voxels.shape))}: Dice {scores}", flush=True)


def elapsed(wall_start: float, processor_start: float) -> str:
    """Return the elapsed wall time and processor time as text."""
    wall, processor = time.monotonic() - wall_start, time.process_time() - processor_start
    goal = "" if wall <= GOAL_S else f" (goal missed: {GOAL_S:.0f} s)"
    return f"{wall:.0f} s, processor time {processor:.0f} s{goal}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=data_folder(), help="Folder of the scans, with an index.json."
    )
    parser.add_argument("--task", choices=TASKS, default="lungs", help="Task. Default: lungs.")
    parser.add_argument("--model", type=Path, help="Model folder. Default: the embedded model.")
    parser.add_argument("--steps", type=int, default=TeachRequest.steps, help="Training steps.")
    parser.add_argument("--slices", type=int, default=6, help="Painted slices of each scan. Default: 6.")
    parser.add_argument("--threads", type=int, default=2, help="Threads. Default: 2.")
    parser.add_argument(
        "--largest-parts", action="store_true", help="Keep only the largest part of each structure."
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

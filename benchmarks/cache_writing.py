"""Measure how much slower a scan is encoded into the latent cache than by the tokenizer alone.

    python benchmarks/cache_writing.py [--rounds 3]

The scans are those of MEDUET_DATA, or the sample scans. Two methods take turns. The tokenizer alone encodes
the prepared volume in one piece. The cache (caches/latent_entry.py) encodes it in tiles, computes the
statistics, rounds to bfloat16, writes chunks and checksums, and waits for the disk. Both methods need a scan
that has been read and prepared; this time is printed separately, because a second worker does it while the
first encodes. Wall and processor time are printed; other work on the machine changes the wall time. Goal: at
most 15 % slower.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from helpers.scans import ct_scans
from torch.nn import functional as F

from meduet_training.data.caches.latent_entry import SourceFile, encode_entry, save_latent_entry
from meduet_training.data.tokenizer_files import load_tokenizer
from napari_meduet.models.folders import demo_model_path
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.preparation import WorkingGrid

SOURCES = (
    "ct-chest-rider-ge/rider_0117.nii.gz",
    "ct-abdomen-msk-crlm-ge16/crlm_1004.nii.gz",
    "ct-extremity-mcgill-ge-ds/sts_014.nii.gz",
)
THREADS = 1  # more threads would wait actively on a busy machine, which counts as processor time
GOAL_OVERHEAD = 0.15

Seconds = tuple[float, float]  # wall, processor


def timed(action: Callable[[], object]) -> Seconds:
    """Return the wall and the processor seconds of an action."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="Rounds in turns. Default: 3.")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(THREADS)
    tokenizer, spec = load_tokenizer(demo_model_path())
    overheads: dict[str, list[float]] = {"wall": [], "processor": []}
    rates: dict[str, list[float]] = {"direct": [], "cache": []}
    stages: dict[str, list[float]] = {"reading": [], "preparing": [], "encoding and writing": []}
    paths = ct_scans(SOURCES)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for path in paths:
            reading = timed(lambda path=path: read_volume(path, modality="CT"))
            volume = read_volume(path, modality="CT")
            values = volume.values()
            grid = WorkingGrid.for_volume(volume, spec.spacing_mm)

            def prepare(values=values, grid=grid) -> torch.Tensor:
                working = grid.to_working(values)
                body_mask(working, "CT")
                return torch.from_numpy(spec.profile_for(values, "CT").encode(working))

            voxels = prepare()[None, None]
            window = 96  # voxels (M-02); both methods encode thin scans with padding up to a window
            missing = [max(0, window - side) for side in voxels.shape[2:]]
            missing = [gap or -side % 4 for gap, side in zip(missing, voxels.shape[2:], strict=True)]
            ends = [amount for gap in reversed(missing) for amount in (gap // 2, gap - gap // 2)]
            padded = F.pad(voxels, ends, mode="replicate")
            source = SourceFile(sha256=volume.sha256, num_bytes=1, modified_ns=1)
            entry = Path(folder) / "entry.safetensors"

            def write(volume=volume, source=source, entry=entry) -> None:
                save_latent_entry(entry, encode_entry(tokenizer, spec, volume), "key", source)

            for turn in range(rounds + 1):  # the first turn fills the caches and is not counted
                preparing = timed(prepare)
                direct = timed(lambda padded=padded: tokenizer.encode(padded))
                whole = timed(write)
                if turn == 0:
                    continue
                own = [total - before for total, before in zip(whole, preparing, strict=True)]
                for kind, mine, alone in zip(overheads, own, direct, strict=True):
                    overheads[kind].append(mine / alone - 1)
                rates["direct"].append(voxels.numel() / direct[1])
                rates["cache"].append(voxels.numel() / own[1])
                for stage, seconds in zip(stages, (reading[1], preparing[1], own[1]), strict=True):
                    stages[stage].append(seconds)
    print(f"{len(paths)} scans, {rounds} rounds in turns, {THREADS} thread; medians, processor time")
    for name, values in rates.items():
        print(f"  {name:8s} {statistics.median(values) / 1e6:6.2f} million voxels / s")
    for kind, values in overheads.items():
        print(
            f"overhead over the tokenizer alone, {kind:9s}: {100 * statistics.median(values):5.1f} % "
            f"(goal: at most {100 * GOAL_OVERHEAD:.0f} %)"
        )
    total = sum(sum(values) for values in stages.values())
    fractions = ", ".join(f"{stage} {100 * sum(values) / total:.0f} %" for stage, values in stages.items())
    print(f"processor time of a scan: {fractions}")


if __name__ == "__main__":
    main()

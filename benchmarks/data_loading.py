"""Measure how fast crops are read from the latent cache, and how long a `base` step on a CPU waits for data.

    python benchmarks/data_loading.py [--steps 2] [--batch 4]

A small cache is made from scans of MEDUET_DATA, or from the sample scans. It is compared with a loader
without a cache, which reads, checks, resamples and normalises the whole .nii.gz for each crop. A second
comparison also encodes the crop, which the cache saves too. Then the loader of a run (sources/prefetching.py,
one worker) feeds steps of the preset `base` with all losses. Goal: a step waits for data less than 5 % of its
time.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from helpers.scans import ct_scans, normalised

from meduet_training.data.caches.latent_encoding import CacheOptions, encoding_tasks, fill_cache
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.sources.prefetching import Loading
from meduet_training.data.sources.step_batches import StepBatches
from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.runtime.optimizer import adamw
from meduet_training.tasks.pretraining.presets import PRESETS
from napari_meduet.models.folders import demo_model_path
from napari_meduet.tokenizers.tiling import encode_posterior_tiled
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL

SOURCES = (
    "ct-chest-rider-ge/rider_0117.nii.gz",
    "ct-abdomen-msk-crlm-ge16/crlm_1004.nii.gz",
    "ct-chest-lidc-philips/lidc0314.nii.gz",
)
CROPS, ROUNDS = 200, 3
THREADS = 2
SIDE = 96
GOAL_WAIT = 0.05


def scans() -> list[Scan]:
    return [
        Scan(
            path=path,
            domain=f"site {number}",
            patient=str(number),
            modality="CT",
            split="train",
            licence="",
            may_train=True,
        )
        for number, path in enumerate(ct_scans(SOURCES))
    ]


def crop_of_file(path: Path, random: np.random.Generator) -> torch.Tensor:
    """Read a whole scan, and return a random crop (1, 1, X, Y, Z) of it."""
    voxels = normalised(read_volume(path, modality="CT"), CT_FULL)
    corner = [int(random.integers(max(1, side - SIDE + 1))) for side in voxels.shape]
    crop = voxels[tuple(slice(start, start + SIDE) for start in corner)]
    return torch.from_numpy(np.ascontiguousarray(crop))[None, None]


@torch.inference_mode()
def reads_per_second(source: CacheSource, cohort: list[Scan]) -> None:
    """Print the crops per second of one thread, because a worker of a loader has one."""
    torch.set_num_threads(1)
    tokenizer, random = load_tokenizer(demo_model_path())[0], np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"the cache": [], ".nii.gz": [], ".nii.gz, encoded": []}
    for turn in range(ROUNDS + 1):  # the first turn fills the caches and is not counted
        choices = source.choose(turn, CROPS)
        start = time.process_time()
        source.read(choices)
        cached = (time.process_time() - start) / CROPS
        start = time.process_time()
        crops = [crop_of_file(scan.path, random) for scan in cohort]
        read = (time.process_time() - start) / len(crops)
        start = time.process_time()
        for crop in crops:
            encode_posterior_tiled(tokenizer, crop)
        encoded = read + (time.process_time() - start) / len(crops)
        if turn:
            for values, value in zip(seconds.values(), (cached, read, encoded), strict=True):
                values.append(value)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(f"{1 / value:8.1f} crops / s of one core from {name}")
    cached, *others = median.values()
    ratios = [other / cached for other in others]
    print(f"times faster than reading a scan: {ratios[0]:.0f}; than reading and encoding: {ratios[1]:.0f}")
    torch.set_num_threads(THREADS)


def wait_of_steps(source: CacheSource, steps: int, batch: int) -> None:
    """Print the time of a training step, and the fraction of it in which the step waits for data."""
    training = PRESETS["base"]()
    network = dataclasses.replace(training.network, num_domains=len(source.domains))
    objective = training.objective.build(network).train()
    optimizer = adamw(
        objective,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        betas=training.betas,
    )
    batches = StepBatches(source, training.objective, network, batch=batch, seed=1)
    loading = Loading(batches, first_step=0, workers=1, pin=False)
    late = training.objective.total_steps - 1  # at this step, every loss has started
    loading.next()  # the start of the worker is not counted
    waited, start = loading.waited, time.monotonic()
    for _ in range(steps):
        losses = objective(loading.next(), late)
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.finish_step(late)
    seconds = time.monotonic() - start
    fraction = (loading.waited - waited) / seconds
    print(f"a base step at batch {batch}: {seconds / steps:.1f} s")
    print(f"waiting for data: {100 * fraction:.2f} % of the step (goal: below {100 * GOAL_WAIT:.0f} %)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2, help="Training steps. Default: 2.")
    parser.add_argument("--batch", type=int, default=4, help="Rows of a batch. Default: 4.")
    arguments = parser.parse_args()
    cohort = scans()
    with tempfile.TemporaryDirectory() as folder:
        options = CacheOptions(folder=Path(folder), tokenizer=demo_model_path(), device="cpu")
        fill_cache(options, encoding_tasks(cohort))
        source = CacheSource(Path(folder), seed=1)
        reads_per_second(source, cohort)
        wait_of_steps(source, arguments.steps, arguments.batch)


if __name__ == "__main__":
    main()

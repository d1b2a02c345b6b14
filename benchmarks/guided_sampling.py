"""What a whole sample costs: evaluations are the lever, not kernels.

    python benchmarks/guided_sampling.py [--model FOLDER]
    python benchmarks/guided_sampling.py --busy  # one thread, processor time: where others work as well

The first table walks the same noise with every sampler, from the 250 stochastic steps of the paper to few
steps of a solver with guidance in an interval. It says how far each volume lies from one walked with 100 Heun
steps: for a solver that is its error, a stochastic sampler goes elsewhere on purpose. The second table makes
larger volumes from windows and says what a voxel costs there. `meduet synthesize` is timed as a person types
it, files in, file out, everything included, on two threads. Content and style are samples of the package.
Goals: a first preview within 5 s, finished within 60 s, a walk 20 times cheaper than the paper's.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_meduet.pipelines.requests import SynthesisRequest
from napari_meduet.pipelines.synthesis.sampling import num_evaluations
from napari_meduet.pipelines.synthesis.session import SynthesisSession, open_synthesis

SAMPLES = Path(__file__).parents[1] / "src" / "napari_meduet" / "samples"
CONTENT, STYLE = SAMPLES / "ct_chest_soft_kernel.nii.gz", SAMPLES / "ct_chest_sharp_kernel.nii.gz"
THREADS, SEED = 2, 1
MIDDLE = (0.2, 0.8)  # guidance at these times only
GOAL_PREVIEW_S, GOAL_TOTAL_S, GOAL_CHEAPER = 5, 60, 20


@dataclass(frozen=True, eq=False)
class Walk:
    """A way to a sample: what of the request differs."""

    name: str
    changes: Mapping[str, Any]


REFERENCE = Walk("heun 100", {"sampler": "heun", "steps": 100})
WALKS = (
    Walk("em 250, the paper's", {"sampler": "em", "steps": 250}),
    Walk("euler 30", {"sampler": "euler", "steps": 30}),
    Walk("heun 12", {"sampler": "heun", "steps": 12}),
    Walk("multistep 24", {"sampler": "multistep", "steps": 24}),
    Walk("heun 12, guided in the middle", {"sampler": "heun", "steps": 12, "guidance_interval": MIDDLE}),
    Walk(
        "multistep 24, guided in the middle",
        {"sampler": "multistep", "steps": 24, "guidance_interval": MIDDLE},
    ),
    Walk(
        "multistep 12, guided in the middle",
        {"sampler": "multistep", "steps": 12, "guidance_interval": MIDDLE},
    ),
    Walk("multistep 12", {"sampler": "multistep", "steps": 12}),
    Walk("heun 6", {"sampler": "heun", "steps": 6}),
)


def walked(session: SynthesisSession, walk: Walk, is_busy: bool) -> tuple[float, np.ndarray]:
    """Seconds of a sample, decoded, and its values."""
    clock = time.process_time if is_busy else time.perf_counter
    start = clock()
    volume = session.sample(**walk.changes).samples[0]
    return clock() - start, volume.voxels.astype(np.float32)


def samplers(request: SynthesisRequest, is_busy: bool) -> None:
    """Print the first table, and what 8-bit integers change.

    Raises:
        SystemExit: few steps with guidance in the middle miss their goal.
    """
    session = open_synthesis(request)
    _, reference = walked(session, REFERENCE, is_busy)  # warms up, too
    print("| walk | evaluations | seconds | times cheaper | HU from heun 100 |\n|---|---|---|---|---|")
    slowest, cheaper = 0.0, {}
    for walk in WALKS:
        seconds, values = walked(session, walk, is_busy)
        slowest = slowest or seconds
        cheaper[walk] = slowest / seconds
        changed = replace(request, **walk.changes)
        distance = float(np.sqrt(np.square(values - reference).mean()))
        print(
            f"| {walk.name} | {num_evaluations(changed, 1.0)} | {seconds:.1f} | {cheaper[walk]:.1f} | "
            f"{distance:.1f} |",
            flush=True,
        )
    in_int8 = open_synthesis(replace(request, precision="int8"))
    full, values = walked(session, WALKS[2], is_busy)
    seconds, rounded = walked(in_int8, WALKS[2], is_busy)
    print(
        f"\n{WALKS[2].name} in int8: {full / seconds:.2f} times faster, "
        f"{float(np.sqrt(np.square(rounded - values).mean())):.1f} HU from float32"
    )
    if max(cheaper.values()) < GOAL_CHEAPER:
        raise SystemExit(f"goal: {GOAL_CHEAPER} times cheaper than {WALKS[0].name}")


def sizes(request: SynthesisRequest) -> None:
    """Print the second table."""
    own = None
    print("\n| voxels | times the generator's own | seconds an evaluation | per voxel, times its own |")
    print("|---|---|---|---|")
    for scale in ((1, 1, 1), (1, 1, 1.5), (1, 1, 2), (2, 2, 2)):
        session = open_synthesis(request)
        grid = session.size
        size = tuple(
            round(side * by) * token
            for side, by, token in zip(grid, scale, session.model.token_voxels, strict=True)
        )
        larger = open_synthesis(replace(request, size=size))
        seconds = larger.predicted_seconds() / num_evaluations(request, 1.0)
        own = own or (seconds, np.prod(size))
        more = np.prod(size) / own[1]
        print(
            f"| {' × '.join(map(str, size))} | {more:.1f} | {seconds:.3f} | {seconds / own[0] / more:.1f} |"
        )


def command(model: Path | None, is_busy: bool) -> None:
    """Time `meduet synthesize`, default settings.

    Raises:
        SystemExit: it fails, or misses a goal on a machine that is not busy.
    """
    chosen = ["--model", str(model)] if model else []
    threads = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(Path(sys.executable).parent / "meduet"), "synthesize"]
        arguments += [
            "--content",
            str(CONTENT),
            "--style",
            str(STYLE),
            "--seed",
            str(SEED),
            "--device",
            "cpu",
        ]
        arguments += ["-o", str(Path(folder) / "result.nii.gz"), *chosen]
        start = time.perf_counter()
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | threads, text=True
        )
        said = process.communicate()[1]
        total = time.perf_counter() - start
        usage = os.times()
    if process.returncode != 0:
        raise SystemExit(said)
    found = re.search(r"First preview after ([\d.]+) s", said)
    preview = float(found.group(1)) if found else float("inf")
    print(
        f"meduet synthesize, {THREADS} threads: first preview after {preview:.1f} s "
        f"(goal {GOAL_PREVIEW_S}), finished after {total:.1f} s (goal {GOAL_TOTAL_S}), "
        f"{usage.children_user + usage.children_system:.1f} s of processors\n"
    )
    if not is_busy and (preview > GOAL_PREVIEW_S or total > GOAL_TOTAL_S):
        raise SystemExit("goals: the times in brackets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--busy", action="store_true", help="one thread, processor time")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.busy else THREADS)
    request = SynthesisRequest(CONTENT, STYLE, seed=SEED, model=options.model, device="cpu")
    print(f"{torch.get_num_threads()} threads, {'processor' if options.busy else 'wall'} time\n")
    command(options.model, options.busy)
    samplers(request, options.busy)
    sizes(request)


if __name__ == "__main__":
    main()

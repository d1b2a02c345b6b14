"""Measure the cost of a whole sample for each sampler, for larger volumes, and for `meduet synthesize`.

    python benchmarks/guided_sampling.py [--model FOLDER]
    python benchmarks/guided_sampling.py --busy  # one thread, processor time, for a busy machine

The first table samples from the same noise with each sampler, from the 250 stochastic steps of the paper to a
few steps of a solver with a guidance interval. It shows the difference to a sample of 100 Heun steps. For a
solver this is its error; a stochastic sampler adds noise of its own. The second table samples larger volumes
in windows and shows the cost for each voxel. `meduet synthesize` is timed as a whole, with all files and the
start of Python, on two threads. Content and style are sample scans. Goals: the first preview within 5 s, the
result within 60 s, and a sample 20 times cheaper than the paper's.
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
from helpers.scans import CT_SAMPLES

from napari_meduet.pipelines.requests import SynthesisRequest
from napari_meduet.pipelines.synthesis.sampling import num_evaluations
from napari_meduet.pipelines.synthesis.session import SynthesisSession, open_synthesis

CONTENT, STYLE = CT_SAMPLES
THREADS, SEED = 2, 1
MIDDLE = (0.2, 0.8)  # guidance interval
GOAL_PREVIEW_S, GOAL_TOTAL_S, GOAL_CHEAPER = 5, 60, 20


@dataclass(frozen=True, eq=False)
class SamplerSetting:
    """A name, and the options of the request for a sampler."""

    name: str
    changes: Mapping[str, Any]


REFERENCE = SamplerSetting("heun 100", {"sampler": "heun", "steps": 100})
SETTINGS = (
    SamplerSetting("em 250, the paper's", {"sampler": "em", "steps": 250}),
    SamplerSetting("euler 30", {"sampler": "euler", "steps": 30}),
    SamplerSetting("heun 12", {"sampler": "heun", "steps": 12}),
    SamplerSetting("multistep 24", {"sampler": "multistep", "steps": 24}),
    SamplerSetting(
        "heun 12, guided in the middle", {"sampler": "heun", "steps": 12, "guidance_interval": MIDDLE}
    ),
    SamplerSetting(
        "multistep 24, guided in the middle",
        {"sampler": "multistep", "steps": 24, "guidance_interval": MIDDLE},
    ),
    SamplerSetting(
        "multistep 12, guided in the middle",
        {"sampler": "multistep", "steps": 12, "guidance_interval": MIDDLE},
    ),
    SamplerSetting("multistep 12", {"sampler": "multistep", "steps": 12}),
    SamplerSetting("heun 6", {"sampler": "heun", "steps": 6}),
)


def timed_sample(
    session: SynthesisSession, setting: SamplerSetting, is_busy: bool
) -> tuple[float, np.ndarray]:
    """Return the seconds for a decoded sample, and its values."""
    clock = time.process_time if is_busy else time.perf_counter
    start = clock()
    volume = session.sample(**setting.changes).samples[0]
    return clock() - start, volume.voxels.astype(np.float32)


def samplers(request: SynthesisRequest, is_busy: bool) -> None:
    """Print the first table, and the speed and the error of 8-bit integers.

    Raises:
        SystemExit: no sampler is 20 times cheaper than the paper's.
    """
    session = open_synthesis(request)
    _, reference = timed_sample(session, REFERENCE, is_busy)  # also a warm-up
    print("| sampler and steps | evaluations | seconds | times cheaper | HU from heun 100 |")
    print("|---|---|---|---|---|")
    slowest, cheaper = 0.0, {}
    for setting in SETTINGS:
        seconds, values = timed_sample(session, setting, is_busy)
        slowest = slowest or seconds
        cheaper[setting] = slowest / seconds
        changed = replace(request, **setting.changes)
        distance = float(np.sqrt(np.square(values - reference).mean()))
        print(
            f"| {setting.name} | {num_evaluations(changed, 1.0)} | {seconds:.1f} | {cheaper[setting]:.1f} | "
            f"{distance:.1f} |",
            flush=True,
        )
    in_int8 = open_synthesis(replace(request, precision="int8"))
    full, values = timed_sample(session, SETTINGS[2], is_busy)
    seconds, rounded = timed_sample(in_int8, SETTINGS[2], is_busy)
    print(
        f"\n{SETTINGS[2].name} in int8: {full / seconds:.2f} times faster, "
        f"{float(np.sqrt(np.square(rounded - values).mean())):.1f} HU from float32"
    )
    if max(cheaper.values()) < GOAL_CHEAPER:
        raise SystemExit(f"Goal missed: {GOAL_CHEAPER} times cheaper than {SETTINGS[0].name}")


def sizes(request: SynthesisRequest) -> None:
    """Print the second table."""
    own = None
    print("\n| voxels | relative size | seconds for each evaluation | relative cost for each voxel |")
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
        ratio = np.prod(size) / own[1]
        print(
            f"| {' × '.join(map(str, size))} | {ratio:.1f} | {seconds:.3f} | {seconds / own[0] / ratio:.1f} |"
        )


def command(model: Path | None, is_busy: bool) -> None:
    """Print the times of `meduet synthesize` with its default settings.

    Raises:
        SystemExit: the command fails, or misses a goal without --busy.
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
        messages = process.communicate()[1]
        total = time.perf_counter() - start
        usage = os.times()
    if process.returncode != 0:
        raise SystemExit(messages)
    found = re.search(r"First preview after ([\d.]+) s", messages)
    preview = float(found.group(1)) if found else float("inf")
    print(
        f"meduet synthesize, {THREADS} threads: first preview after {preview:.1f} s "
        f"(goal {GOAL_PREVIEW_S}), finished after {total:.1f} s (goal {GOAL_TOTAL_S}), "
        f"{usage.children_user + usage.children_system:.1f} s of processor time\n"
    )
    if not is_busy and (preview > GOAL_PREVIEW_S or total > GOAL_TOTAL_S):
        raise SystemExit("Goal missed: see the times in brackets.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="Model folder. Default: the embedded model.")
    parser.add_argument("--busy", action="store_true", help="Use one thread and measure processor time.")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.busy else THREADS)
    request = SynthesisRequest(CONTENT, STYLE, seed=SEED, model=options.model, device="cpu")
    print(f"{torch.get_num_threads()} threads, {'processor' if options.busy else 'wall'} time\n")
    command(options.model, options.busy)
    samplers(request, options.busy)
    sizes(request)


if __name__ == "__main__":
    main()

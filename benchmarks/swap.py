"""Measure time and peak memory of `meduet swap` on 512 x 512 x 120 scans, and the fraction of the networks.

    python benchmarks/swap.py [--data ../shared/data] [--model FOLDER]

The measurement uses two threads and goes from files to files: start of Python, imports, reading, safety
report and writing. The pair consists of two real chest scans, enlarged in their planes, or of the sample
scans. The first run is the command as a user types it. The second run makes the same swap with timers around
the tokenizer and MeDUET, and shows the time of the networks. Goal: the networks take more than half of the
time.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any

import psutil
from helpers.processes import run_process
from helpers.scans import ROOT, ct_scans, enlarge

THREADS = 2
SHAPE = (512, 512, 120)
GOAL_FRACTION = 0.5
PAIR = (
    "ct-chest-lidc-philips/lidc0314.nii.gz",
    "ct-chest-cmbcrc-ge-vct/cmbcrc_01068.nii.gz",
)


def measure(content: Path, style: Path, output: Path, model: Path | None) -> dict[str, Any]:
    """Make the swap in this process, and return its time and the times of the networks."""
    from napari_meduet.models.loading import load_model
    from napari_meduet.pipelines import SwapRequest, swap

    spent: defaultdict[str, float] = defaultdict(float)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def measured(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                spent[name] += time.perf_counter() - start

        return measured

    loaded = load_model(model)  # the swap takes these networks from the cache of models
    for name, network in (("tokenizer", loaded.tokenizer), ("MeDUET", loaded.meduet)):
        for method in ("encode", "decode"):
            setattr(network, method, timed(f"{name} {method}", getattr(network, method)))
    swap(SwapRequest(content, style, model=model)).save(output)
    total = time.time() - psutil.Process().create_time()
    return {"total": total, "networks": dict(spent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="Folder of the scans."
    )
    parser.add_argument("--model", type=Path, help="Model folder. Default: the embedded model.")
    parser.add_argument("--measure", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.model)))
        return

    sources = ct_scans(PAIR, options.data)
    chosen = ["--model", str(options.model)] if options.model else []
    with tempfile.TemporaryDirectory() as folder:
        content, style, output, again = (
            Path(folder) / f"{name}.nii.gz" for name in ("content", "style", "output", "again")
        )
        # In a process of its own, because the peak memory of a child includes the memory of its parent.
        with ProcessPoolExecutor(max_workers=1) as pool:
            list(pool.map(enlarge, sources, (content, style), (SHAPE, SHAPE)))
        command = [str(Path(sys.executable).parent / "meduet"), "swap", str(content), str(style)]
        swapped = run_process([*command, "-o", str(output), *chosen], THREADS)
        arguments = [__file__, "--measure", str(content), str(style), str(again), *chosen]
        measured = run_process([sys.executable, *arguments], THREADS)
    result = json.loads(measured.output.splitlines()[-1])
    networks = sum(result["networks"].values())
    shape = " x ".join(map(str, SHAPE))
    print(f"{shape}, made from {' and '.join(source.name for source in sources)}, {THREADS} threads")
    print(f"meduet swap: {swapped.seconds:.1f} s, peak memory {swapped.peak_bytes / 2**30:.2f} GiB")
    print(swapped.output.splitlines()[0])
    print(f"the same with timers: {result['total']:.1f} s, of this")
    for name, spent in result["networks"].items():
        print(f"  {name:<18}{spent:8.1f} s")
    fraction = networks / result["total"]
    print(f"  {'all networks':<18}{networks:8.1f} s: {fraction:.0%} (goal: more than {GOAL_FRACTION:.0%})")


if __name__ == "__main__":
    main()

"""Time and peak memory of `meduet swap` on a pair of 512 x 512 x 120 scans, and the networks' share of it.

    python benchmarks/swap.py [--data ../shared/data] [--model FOLDER]

Two threads, files in, file out, everything included: interpreter, imports, reading, safety report, writing.
The pair is made by enlarging two real chest scans in their planes (the samples inside the package where the
folder of scans is absent). The first run is the command as a person types it; the second runs the same
request with clocks around the tokenizer and MeDUET, and says what the networks took and what the rest did.
Goal of the first issue: the networks' share exceeds half. A tokenizer is measured to be 80 times cheaper
than the field's (PERFORMANCE), so little is left to hide behind.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from scipy.ndimage import zoom

THREADS = 2
SHAPE = (512, 512, 120)
GOAL_SHARE = 0.5
ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "src" / "napari_meduet" / "samples"
PAIR = (
    "ct-chest-lidc-philips/lidc0314.nii.gz",
    "ct-chest-cmbcrc-ge-vct/cmbcrc_01068.nii.gz",
)
SAMPLE_PAIR = ("ct_chest_soft_kernel.nii.gz", "ct_chest_sharp_kernel.nii.gz")


def enlarge(source: Path, target: Path) -> None:
    """A scan of the benchmark's size with the field of view of the source."""
    image = nib.load(source)
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    factors = np.array(SHAPE) / voxels.shape
    grid = image.affine @ np.diag([*(1 / factors), 1.0])
    enlarged = np.rint(zoom(voxels, factors, order=1)).astype(np.int16)
    nib.save(nib.Nifti1Image(enlarged, grid), target)


def run(arguments: list[str]) -> tuple[float, float, str]:
    """Seconds, peak bytes and output of a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(arguments[:3])} failed")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return seconds, usage.ru_maxrss * unit, text


def measure(content: Path, style: Path, output: Path, model: Path | None) -> dict[str, Any]:
    """The same swap in this process, with clocks around the networks."""
    from napari_meduet.models.loading import load_model
    from napari_meduet.pipelines import SwapRequest, swap

    spent: Counter[str] = Counter()

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def clocked(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                spent[name] += time.perf_counter() - start

        return clocked

    loaded = load_model(model)  # kept, so the swap uses these very networks
    for name, network in (("tokenizer", loaded.tokenizer), ("MeDUET", loaded.meduet)):
        for method in ("encode", "decode"):
            setattr(network, method, timed(f"{name} {method}", getattr(network, method)))
    swap(SwapRequest(content, style, model=model)).save(output)
    total = time.time() - psutil.Process().create_time()
    return {"total": total, "networks": dict(spent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--measure", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.model)))
        return

    sources = [options.data / name for name in PAIR]
    if not all(source.is_file() for source in sources):
        sources = [SAMPLES / name for name in SAMPLE_PAIR]
    chosen = ["--model", str(options.model)] if options.model else []
    with tempfile.TemporaryDirectory() as folder:
        content, style, output, again = (
            Path(folder) / f"{name}.nii.gz" for name in ("content", "style", "output", "again")
        )
        # In processes of their own: a child's peak memory counts what its parent held when it was started.
        with ProcessPoolExecutor(max_workers=1) as pool:
            list(pool.map(enlarge, sources, (content, style)))
        command = [str(Path(sys.executable).parent / "meduet"), "swap", str(content), str(style)]
        seconds, peak, said = run([*command, "-o", str(output), *chosen])
        _, _, measured = run(
            [sys.executable, __file__, "--measure", str(content), str(style), str(again), *chosen]
        )
    result = json.loads(measured.splitlines()[-1])
    networks = sum(result["networks"].values())
    shape = " x ".join(map(str, SHAPE))
    print(f"{shape}, made from {' and '.join(source.name for source in sources)}, {THREADS} threads")
    print(f"meduet swap: {seconds:.1f} s, peak memory {peak / 2**30:.2f} GiB")
    print(said.splitlines()[0])
    print(f"measured again with clocks: {result['total']:.1f} s, of which")
    for name, spent in result["networks"].items():
        print(f"  {name:<18}{spent:8.1f} s")
    share = networks / result["total"]
    print(f"  {'all networks':<18}{networks:8.1f} s: {share:.0%} (goal: more than {GOAL_SHARE:.0%})")


if __name__ == "__main__":
    main()

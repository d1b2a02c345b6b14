"""Time and peak memory of segmenting a 512 x 512 x 120 CT: our latent UNETR and MONAI's image-space UNETR.

    python benchmarks/segmentation.py [--data ../shared/data] [--quick] [--rounds 1] [--threads 1]

Both are ViT-B (768 x 12) with random weights and 14 classes, on the same 1.5 mm grid, in windows of 96^3
voxels with an overlap of 0.5, four at a time; from a NIfTI file to labels on the scan's own grid in another
one, tokenizer included. MONAI goes as its tutorials do: LoadImage, Orientation, Spacing, `UNETR` (its
defaults, patches of 16^3), `sliding_window_inference` with Gaussian weights; classes are decided on the
1.5 mm grid and the labels, not the scores, go back, which is the way that needs least. Ours runs with both of
its heads.

Each run is a process of its own and tells its peak memory; they take turns. Times are of the processor, so
that neighbours on the machine count for little; with one thread they are what a quiet machine takes.
`--quick` lets MONAI's network see a part of the windows: the others get the scores of an earlier one, so that
its memory is real, and its time is extrapolated from those it saw. Last comes `meduet segment` with the
embedded segmenter, where the model has one. Goals of the fifth issue: at least 3 times faster, at most half
of the memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from scipy.ndimage import zoom

SHAPE = (512, 512, 120)
SCAN = "ct-chest-lidc-philips/lidc0314.nii.gz"
SAMPLE = "ct_chest_soft_kernel.nii.gz"
NUM_CLASSES = 14  # the background and the thirteen organs of the benchmark that UNETR was published on
WINDOW, WINDOWS_AT_ONCE, OVERLAP = (96, 96, 96), 4, 0.5
QUICK_WINDOWS = 12
GOAL_SPEED, GOAL_MEMORY = 3.0, 0.5
ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "src" / "napari_meduet" / "samples"


def enlarge(source: Path, target: Path) -> None:
    """A scan of the benchmark's size with the field of view of the source."""
    image = nib.load(source)
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    factors = np.array(SHAPE) / voxels.shape
    grid = image.affine @ np.diag([*(1 / factors), 1.0])
    enlarged = np.rint(zoom(voxels, factors, order=1)).astype(np.int16)
    nib.save(nib.Nifti1Image(enlarged, grid), target)


def ours(scan: Path, output: Path, head: Literal["decoder", "light"]) -> dict[str, Any]:
    """A base latent UNETR of random weights on the latents of the embedded model."""
    from napari_meduet.core.analysis.unetr import UNETRConfig
    from napari_meduet.models.card import MaskClass
    from napari_meduet.models.loading import load_model
    from napari_meduet.models.segmenters import build_segmenter
    from napari_meduet.pipelines import read_volume
    from napari_meduet.pipelines.segmentation.session import segment_volume

    model = load_model()
    network = build_segmenter(UNETRConfig(num_classes=NUM_CLASSES, head=head), model.card.tokenizer)
    network.eval().requires_grad_(False)
    classes = [MaskClass(label=label, name=f"class {label}") for label in range(NUM_CLASSES)]
    stages: dict[str, float] = {}
    started = time.process_time()
    before, told, longest = "reading", started, 0.0

    def on_progress(_: float, doing: str) -> None:
        nonlocal before, told, longest
        now = time.process_time()
        stages[before] = stages.get(before, 0.0) + now - told
        longest = max(longest, now - told)
        before, told = doing, now

    result = segment_volume(
        model, network, classes, read_volume(scan, modality="CT"), on_progress=on_progress
    )
    on_progress(1.0, "writing")
    result.save(output)
    on_progress(1.0, "")
    return {"stages": stages, "longest": longest, "seconds": time.process_time() - started}


def embedded(scan: Path, output: Path) -> dict[str, Any]:
    """`meduet segment` with the model inside the package."""
    from napari_meduet.pipelines import ScanChoice, SegmentRequest, segment

    started = time.process_time()
    segment(SegmentRequest(scan, device="cpu", choice=ScanChoice(modality="CT"))).save(output)
    return {"seconds": time.process_time() - started}


def monai(scan: Path, output: Path, num_real: int | None) -> dict[str, Any]:
    """MONAI's image-space UNETR, of whose windows the network sees `num_real`."""
    import torch
    from monai.inferers.utils import sliding_window_inference
    from monai.networks.nets.unetr import UNETR
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.array import ScaleIntensityRange
    from monai.transforms.io.array import LoadImage
    from monai.transforms.spatial.array import Orientation, ResampleToMatch, Spacing

    network = UNETR(in_channels=1, out_channels=NUM_CLASSES, img_size=WINDOW).eval().requires_grad_(False)
    started = time.process_time()
    read = LoadImage(ensure_channel_first=True)
    prepare = Compose(
        [
            Orientation("RAS", labels=None),
            Spacing((1.5, 1.5, 1.5), mode="bilinear", dtype=np.float32),
            ScaleIntensityRange(-175, 250, 0, 1, clip=True),
        ]
    )
    native = read(scan)
    image = prepare(native)
    windows, seen, spent, kept = 0, 0, 0.0, torch.empty(0)

    def predict(batch: torch.Tensor) -> torch.Tensor:
        nonlocal windows, seen, spent, kept
        windows += len(batch)
        if num_real is not None and seen >= num_real:
            return kept[: len(batch)].clone()
        before = time.process_time()
        kept = network(batch)
        spent += time.process_time() - before
        seen += len(batch)
        return kept

    with torch.inference_mode():
        scores = sliding_window_inference(
            image[None], WINDOW, WINDOWS_AT_ONCE, predict, overlap=OVERLAP, mode="gaussian"
        )
        labels = scores.argmax(dim=1).to(torch.uint8)
        del scores
        labels = ResampleToMatch(mode="nearest", padding_mode="border", dtype=np.float32)(labels, native)
    nib.save(nib.Nifti1Image(labels[0].numpy().astype(np.uint8), native.affine.numpy()), output)
    seconds = time.process_time() - started
    whole = seconds + spent * (windows / seen - 1)
    return {"seconds": whole, "windows": windows, "seen": seen, "network": spent / seen}


def has_embedded_segmenter() -> bool:
    from napari_meduet.models.card import read_card
    from napari_meduet.models.folders import demo_model_path

    return read_card(demo_model_path()).segmenter is not None


def run(arguments: list[str], threads: int) -> dict[str, Any]:
    """What a process of its own reports, its peak bytes added."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"{arguments[1]} failed")
        output.seek(0)
        report = json.loads(output.read().splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return report | {"peak": usage.ru_maxrss * unit}


def median(reports: list[dict[str, Any]], name: str) -> float:
    return statistics.median(report[name] for report in reports)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="MONAI's network sees a part of the windows")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, scan, output = options.run
        runners: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
            "ours": lambda scan, output: ours(scan, output, "decoder"),
            "light": lambda scan, output: ours(scan, output, "light"),
            "embedded": embedded,
            "monai": lambda scan, output: monai(scan, output, QUICK_WINDOWS if options.quick else None),
        }
        print(json.dumps(runners[name](Path(scan), Path(output))))
        return

    source = options.data / SCAN
    if not source.is_file():
        source = SAMPLES / SAMPLE
    quick = ["--quick"] if options.quick else []
    reports: dict[str, list[dict[str, Any]]] = {"ours": [], "monai": [], "light": []}
    with tempfile.TemporaryDirectory() as folder:
        scan, output = Path(folder) / "scan.nii.gz", Path(folder) / "labels.nii.gz"
        # In a process of its own: a child's peak memory counts what its parent held when it was started.
        with ProcessPoolExecutor(max_workers=1) as pool:
            pool.submit(enlarge, source, scan).result()
        for _ in range(options.rounds):
            for name, found in reports.items():
                output.unlink(missing_ok=True)
                (Path(folder) / "labels.json").unlink(missing_ok=True)
                found.append(run(["--run", name, str(scan), str(output), *quick], options.threads))
        print(f"{' x '.join(map(str, SHAPE))}, made from {source.name}, {options.threads} threads")
        tell(reports, options.quick)
        if has_embedded_segmenter():
            output = Path(folder) / "embedded.nii.gz"
            found = run(["--run", "embedded", str(scan), str(output)], options.threads)
            print(f"embedded segmenter: {found['seconds']:.1f} s, {found['peak'] / 2**30:.2f} GiB")


def tell(reports: dict[str, list[dict[str, Any]]], is_quick: bool) -> None:
    theirs = reports["monai"][0]
    seconds, peak = median(reports["monai"], "seconds"), median(reports["monai"], "peak")
    print(f"MONAI: {seconds:.1f} s, peak memory {peak / 2**30:.2f} GiB")
    print(f"    its network takes {theirs['network']:.2f} s for each of {theirs['windows']} windows")
    if is_quick:
        print(f"    measured on {theirs['seen']} of them; the time is extrapolated")
    for name, head in (("ours", "the tokenizer's decoder as head"), ("light", "the light head")):
        found = reports[name]
        own_seconds, own_peak = median(found, "seconds"), median(found, "peak")
        print(f"ours, {head}: {own_seconds:.1f} s, peak memory {own_peak / 2**30:.2f} GiB")
        for doing, spent in found[0]["stages"].items():
            print(f"    {doing:<22}{spent:7.1f} s")
        print(f"    {seconds / own_seconds:.2f} times faster (goal: {GOAL_SPEED:g})")
        print(f"    {own_peak / peak:.2f} of the memory (goal: {GOAL_MEMORY:g})")
        print(f"    at most {found[0]['longest']:.2f} s pass until a cancelled run stops")


if __name__ == "__main__":
    main()

"""Measure time and peak memory of segmenting a 512 x 512 x 120 CT, compared with MONAI's image-space UNETR.

    python benchmarks/segmentation.py [--data ../shared/data] [--quick] [--rounds 1] [--threads 1]

Both networks are ViT-B (768 x 12) with random weights and 14 classes. Both use the same 1.5 mm grid and
windows of 96^3 voxels with an overlap of 0.5, four at a time. The measurement goes from a NIfTI file to a
NIfTI file of labels on the grid of the scan, with the tokenizer included. The MONAI script follows its
tutorials: LoadImage, Orientation, Spacing, `UNETR` with default options and patches of 16^3, and
`sliding_window_inference` with Gaussian weights. It decides the classes on the 1.5 mm grid and resamples the
labels instead of the scores, which needs the least memory. Our network is measured with both of its heads.

Each run is a process of its own, and the runs take turns. The times are processor times, which other work on
the machine hardly changes; with one thread they equal the wall time on an idle machine. With `--quick`,
MONAI's network computes only some of the windows, and the scores of the others are copies, so that the memory
is real; the time is extrapolated. At the end, `meduet segment` is measured with the embedded segmenter, if
the model has one. Goals: at least 3 times faster, at most half of the memory.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from helpers.processes import run_process
from helpers.scans import CT_SAMPLES, ROOT, enlarge

SHAPE = (512, 512, 120)
SCAN = "ct-chest-lidc-philips/lidc0314.nii.gz"
NUM_CLASSES = 14  # background and the thirteen organs of the benchmark in the UNETR paper
WINDOW, WINDOWS_AT_ONCE, OVERLAP = (96, 96, 96), 4, 0.5
QUICK_WINDOWS = 12
GOAL_SPEED, GOAL_MEMORY = 3.0, 0.5


def ours(scan: Path, output: Path, head: Literal["decoder", "light"]) -> dict[str, Any]:
    """Segment with a base latent UNETR with random weights, on the latents of the embedded model."""
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
    stage, reported, longest = "reading", started, 0.0

    def on_progress(_: float, doing: str) -> None:
        nonlocal stage, reported, longest
        now = time.process_time()
        stages[stage] = stages.get(stage, 0.0) + now - reported
        longest = max(longest, now - reported)
        stage, reported = doing, now

    result = segment_volume(
        model, network, classes, read_volume(scan, modality="CT"), on_progress=on_progress
    )
    on_progress(1.0, "writing")
    result.save(output)
    on_progress(1.0, "")
    return {"stages": stages, "longest": longest, "seconds": time.process_time() - started}


def embedded(scan: Path, output: Path) -> dict[str, Any]:
    """Segment with the embedded model, as `meduet segment` does."""
    from napari_meduet.pipelines import ScanChoice, SegmentRequest, segment

    started = time.process_time()
    segment(SegmentRequest(scan, device="cpu", choice=ScanChoice(modality="CT"))).save(output)
    return {"seconds": time.process_time() - started}


def monai(scan: Path, output: Path, num_real: int | None) -> dict[str, Any]:
    """Segment with MONAI's image-space UNETR, which computes `num_real` of the windows; None: all."""
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
    windows, computed, spent, last = 0, 0, 0.0, torch.empty(0)

    def predict(batch: torch.Tensor) -> torch.Tensor:
        nonlocal windows, computed, spent, last
        windows += len(batch)
        if num_real is not None and computed >= num_real:
            return last[: len(batch)].clone()
        before = time.process_time()
        last = network(batch)
        spent += time.process_time() - before
        computed += len(batch)
        return last

    with torch.inference_mode():
        scores = sliding_window_inference(
            image[None], WINDOW, WINDOWS_AT_ONCE, predict, overlap=OVERLAP, mode="gaussian"
        )
        labels = scores.argmax(dim=1).to(torch.uint8)
        del scores
        labels = ResampleToMatch(mode="nearest", padding_mode="border", dtype=np.float32)(labels, native)
    nib.save(nib.Nifti1Image(labels[0].numpy().astype(np.uint8), native.affine.numpy()), output)
    seconds = time.process_time() - started
    extrapolated = seconds + spent * (windows / computed - 1)
    return {"seconds": extrapolated, "windows": windows, "computed": computed, "network": spent / computed}


def has_embedded_segmenter() -> bool:
    from napari_meduet.models.card import read_card
    from napari_meduet.models.folders import demo_model_path

    return read_card(demo_model_path()).segmenter is not None


def run(arguments: list[str], threads: int) -> dict[str, Any]:
    """Return the report of a run in a process of its own, and its peak memory in bytes."""
    result = run_process([sys.executable, __file__, *arguments], threads)
    return json.loads(result.output.splitlines()[-1]) | {"peak": result.peak_bytes}


def median(reports: list[dict[str, Any]], name: str) -> float:
    return statistics.median(report[name] for report in reports)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="Folder of the scans."
    )
    parser.add_argument(
        "--quick", action="store_true", help="Let MONAI's network compute only some of the windows."
    )
    parser.add_argument("--rounds", type=int, default=1, help="Rounds in turns. Default: 1.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each run. Default: 1.")
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
        source = CT_SAMPLES[0]
    quick = ["--quick"] if options.quick else []
    reports: dict[str, list[dict[str, Any]]] = {"ours": [], "monai": [], "light": []}
    with tempfile.TemporaryDirectory() as folder:
        scan, output = Path(folder) / "scan.nii.gz", Path(folder) / "labels.nii.gz"
        # In a process of its own, because the peak memory of a child includes the memory of its parent.
        with ProcessPoolExecutor(max_workers=1) as pool:
            pool.submit(enlarge, source, scan, SHAPE).result()
        for _ in range(options.rounds):
            for name, found in reports.items():
                output.unlink(missing_ok=True)
                (Path(folder) / "labels.json").unlink(missing_ok=True)
                found.append(run(["--run", name, str(scan), str(output), *quick], options.threads))
        print(f"{' x '.join(map(str, SHAPE))}, made from {source.name}, {options.threads} threads")
        print_report(reports, options.quick)
        if has_embedded_segmenter():
            output = Path(folder) / "embedded.nii.gz"
            found = run(["--run", "embedded", str(scan), str(output)], options.threads)
            print(f"embedded segmenter: {found['seconds']:.1f} s, {found['peak'] / 2**30:.2f} GiB")


def print_report(reports: dict[str, list[dict[str, Any]]], is_quick: bool) -> None:
    theirs = reports["monai"][0]
    seconds, peak = median(reports["monai"], "seconds"), median(reports["monai"], "peak")
    print(f"MONAI: {seconds:.1f} s, peak memory {peak / 2**30:.2f} GiB")
    print(f"    the network takes {theirs['network']:.2f} s for each of {theirs['windows']} windows")
    if is_quick:
        print(f"    measured on {theirs['computed']} of them; the time is extrapolated")
    for name, head in (("ours", "head like the decoder"), ("light", "light head")):
        found = reports[name]
        own_seconds, own_peak = median(found, "seconds"), median(found, "peak")
        print(f"ours, {head}: {own_seconds:.1f} s, peak memory {own_peak / 2**30:.2f} GiB")
        for doing, spent in found[0]["stages"].items():
            print(f"    {doing:<22}{spent:7.1f} s")
        print(f"    {seconds / own_seconds:.2f} times faster (goal: {GOAL_SPEED:g})")
        print(f"    {own_peak / peak:.2f} of the memory (goal: {GOAL_MEMORY:g})")
        print(f"    longest time until a cancelled run stops: {found[0]['longest']:.2f} s")


if __name__ == "__main__":
    main()

"""Measure reading and preparing a 512 x 512 x 200 .nii.gz scan, compared with MONAI and with SimpleITK.

    python benchmarks/reading.py [--scan SCAN.nii.gz] [--rounds 5]

Our method is the one of the product: `read_volume` with all checks, then `prepare_scan`, which resamples the
scan, normalises it and finds the body. MONAI and SimpleITK read, resample and normalise without checks. The
methods take turns on the same file; the ratios are ratios of medians, because absolute times vary with other
work on the machine. Without --scan, the script makes a scan: a real one from MEDUET_DATA, enlarged and with
its noise restored, or a phantom. Goals: at least 4 times faster than MONAI, not slower than SimpleITK, and
checks that take at most a tenth of the time for loading.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from helpers.scans import data_folder
from isal import isal_zlib
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, ScaleIntensityRange, Spacing
from scipy import ndimage

from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_SOFT
from napari_meduet.volumes.preparation import WORKING_SPACING_MM

SHAPE = (512, 512, 200)
SPACING_MM = (0.75, 0.75, 1.25)
NOISE_HU = 15.0  # noise of a standard chest reconstruction; enlarging removes the noise of the scan
SOURCE = "ct-chest-lidc-philips/lidc0314.nii.gz"
LOW, HIGH = CT_SOFT.knots[0][0], CT_SOFT.knots[-1][0]
NUM_THREADS = 2


def make_scan(path: Path) -> str:
    """Write the scan, and return a description of its source."""
    source = data_folder() / SOURCE
    if source.is_file():
        values = read_volume(source).values()
        values = ndimage.zoom(values, np.array(SHAPE) / values.shape, order=1)
        origin = "a real chest CT, enlarged"
    else:
        x, y, z = np.ogrid[-1:1:512j, -1:1:512j, -1:1:200j]
        values = np.full(SHAPE, -1000, np.float32)
        values[(x / 0.8) ** 2 + (y / 0.6) ** 2 < 1 + 0 * z] = 40
        values[((abs(x) - 0.4) / 0.25) ** 2 + (y / 0.4) ** 2 + z**2 < 1] = -850
        values[x**2 + ((y - 0.45) / 0.8) ** 2 + 0 * z < 0.01] = 700
        origin = "a phantom"
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE, np.float32), 0.6)
    values += noise * (NOISE_HU / noise.std())
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1])
    image = nib.Nifti1Image(np.clip(np.rint(values), -1024, 3071).astype(np.int16), affine)
    nib.save(image, path)
    return origin


def ours(path: Path) -> object:
    return prepare_scan(embedded_model(), read_volume(path, modality="CT"))


@cache
def embedded_model() -> Model:
    return load_model(None, "cpu")


def with_monai(path: Path) -> object:
    chain = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Orientation(axcodes="RAS", labels=None),
            ScaleIntensityRange(a_min=LOW, a_max=HIGH, b_min=0.0, b_max=1.0, clip=True),
            Spacing(pixdim=(WORKING_SPACING_MM,) * 3, mode="bilinear"),
        ]
    )
    return chain(str(path))


def with_simpleitk(path: Path) -> np.ndarray:
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")
    image = sitk.IntensityWindowing(
        sitk.Cast(image, sitk.sitkFloat32),
        windowMinimum=LOW,
        windowMaximum=HIGH,
        outputMinimum=0,
        outputMaximum=1,
    )
    size = [
        int(np.ceil((n - 1) * mm / WORKING_SPACING_MM)) + 1
        for n, mm in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    image = sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        (WORKING_SPACING_MM,) * 3,
        image.GetDirection(),
    )
    return sitk.GetArrayViewFromImage(image)


def load(path: Path) -> np.ndarray:
    return read_volume(path, modality="CT").voxels


def load_unchecked(path: Path) -> np.ndarray:
    """Decompress the voxels and compute their SHA-256, as `read_volume` does, without any check."""
    voxels = np.empty(SHAPE, np.int16, order="F")
    decompressor = isal_zlib.decompressobj(wbits=31)
    target, position = voxels.T.data.cast("B"), -352
    sha256 = hashlib.sha256()
    with open(path, "rb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
        while chunk := file.read(2**18):
            hasher.submit(sha256.update, chunk)
            piece = memoryview(decompressor.decompress(chunk))
            start = max(0, -position)
            target[position + start : position + len(piece)] = piece[start:]
            position += len(piece)
    return voxels


METHODS: dict[str, Callable[[Path], object]] = {
    "napari-meduet, all checks": ours,
    "MONAI, as published": with_monai,
    f"SimpleITK, {NUM_THREADS} threads": with_simpleitk,
    "napari-meduet, loading": load,
    "loading without checks": load_unchecked,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, help="CT as .nii.gz. Default: a scan that the script makes.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds in turns. Default: 5.")
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    embedded_model()  # loading the model is not measured
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(NUM_THREADS)

    with tempfile.TemporaryDirectory() as folder:
        path, origin = arguments.scan, "the given scan"
        if path is None:
            path = Path(folder) / "scan.nii.gz"
            origin = make_scan(path)
        seconds: dict[str, list[float]] = {name: [] for name in METHODS}
        processor: dict[str, list[float]] = {name: [] for name in METHODS}
        for turn in range(arguments.rounds + 1):  # the first turn fills the caches and is not counted
            for name, method in METHODS.items():
                start, cpu = time.perf_counter(), time.process_time()
                method(path)
                if turn > 0:
                    seconds[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - cpu)
        print(f"{origin}: {path.stat().st_size / 2**20:.0f} MiB; {arguments.rounds} rounds; medians")

    median = {name: statistics.median(times) for name, times in seconds.items()}
    mine, monai, itk, *_ = median.values()
    *_, loading, bare = (statistics.median(times) for times in processor.values())
    for name, value in median.items():
        print(f"  {name:28s} {value:6.2f} s, processor time {statistics.median(processor[name]):6.2f} s")
    print(f"times faster than MONAI:     {monai / mine:.1f} (goal: at least 4; stretch goal: 10)")
    print(f"times faster than SimpleITK: {itk / mine:.2f} (goal: at least 1)")
    checks = 100 * (loading - bare) / loading
    print(f"checks: {checks:.0f} % of the processor time for loading (goal: at most 10 %)")


if __name__ == "__main__":
    main()

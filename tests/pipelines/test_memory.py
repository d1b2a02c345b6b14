"""A job that does not fit is refused before it starts, and the estimate covers what a swap really takes."""

import subprocess
import sys

import pytest

from napari_meduet.errors import InputError
from napari_meduet.pipelines import ExtractRequest, RoundtripRequest, SwapRequest, extract, roundtrip, swap
from napari_meduet.pipelines.common import memory as memory_module
from napari_meduet.pipelines.common.score_slabs import SLAB_BUDGET_BYTES

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")

PEAK = """
import sys
from pathlib import Path
import nibabel as nib, numpy as np
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines import ScanChoice, SwapRequest, read_volume, swap
from napari_meduet.pipelines.common.memory import needed_bytes

folder, small, style = sys.argv[1:]

def peak():  # ru_maxrss would begin with the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

swap(SwapRequest(small, style, model=folder, device="cpu"))  # libraries and networks are in place
before = peak()
values = np.random.default_rng(0).normal(40, 9, (320, 320, 64)).astype(np.int16)
nib.save(nib.Nifti1Image(values, np.diag([0.5, 0.5, 1.0, 1])), "large.nii.gz")
ct = ScanChoice(modality="CT")
request = SwapRequest("large.nii.gz", style, model=folder, device="cpu", content_choice=ct)
needed = needed_bytes(load_model(folder, "cpu"), read_volume("large.nii.gz", modality="CT"))
swap(request)
print((peak() - before) / needed)
"""


@LINUX
def test_the_estimate_covers_the_peak_of_a_swap(tiny_model, smooth_ct, noisy_ct, tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", PEAK, tiny_model, smooth_ct, noisy_ct],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    assert 0.3 < float(finished.stdout) < 1.0


PEAK_OF_SEGMENTATION = """
import sys
from pathlib import Path
import numpy as np
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.models.card import MaskClass
from napari_meduet.models.loading import load_model
from napari_meduet.models.segmenters import build_segmenter
from napari_meduet.pipelines.common.memory import segmentation_bytes
from napari_meduet.pipelines.segmentation.session import segment_volume
from napari_meduet.volumes.volume import Volume

folder, num_classes = sys.argv[1], int(sys.argv[2])
model = load_model(folder, "cpu")
sizes = dict(grid=(2, 2, 2), width=24, depth=4, heads=2, features=8, head="light", num_classes=num_classes)
network = build_segmenter(UNETRConfig(**sizes), model.card.tokenizer).eval()
classes = [MaskClass(label=label, name=str(label)) for label in range(num_classes)]

def scan(*shape):
    values = np.random.default_rng(0).integers(20, 60, shape, np.int16)
    return Volume(voxels=values, affine=np.diag([0.5, 0.5, 1.0, 1]), modality="CT", unit="HU", sha256="")

def memory(field):
    status = Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) * 1024

segment_volume(model, network, classes, scan(100, 100, 40))  # libraries are in place
large = scan(300, 300, 80)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = memory("VmRSS")
segment_volume(model, network, classes, large)
peak = memory("VmHWM") - before
print(peak / segmentation_bytes(model, network, large), peak)
"""


@LINUX
def test_the_estimate_covers_the_peak_of_a_segmentation_of_many_classes(tiny_model):
    """60 classes are 1.7 GB of scores on this scan's own grid; what is there of them fits a slab."""
    finished = subprocess.run(
        [sys.executable, "-c", PEAK_OF_SEGMENTATION, tiny_model, "60"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    share, peak = map(float, finished.stdout.split())
    assert 0.3 < share < 1.0
    assert peak < 1.5 * SLAB_BUDGET_BYTES


@LINUX
def test_the_limit_of_the_process_is_known():
    script = (
        "import resource\n"
        "from napari_meduet.pipelines.common.memory import _left_to_process\n"
        "assert _left_to_process() is None\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_AS)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30, hard))\n"
        "print(_left_to_process() / 2**30)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 32 < float(finished.stdout) < 64


def test_what_does_not_fit_is_refused_with_numbers(tiny_model, smooth_ct, noisy_ct, monkeypatch):
    monkeypatch.setattr(memory_module, "free_bytes", lambda: 1000)
    asked = {"model": tiny_model, "device": "cpu"}
    with pytest.raises(InputError, match="GiB"):
        swap(SwapRequest(smooth_ct, noisy_ct, **asked))
    with pytest.raises(InputError, match="GiB"):
        extract(ExtractRequest([smooth_ct], **asked))
    with pytest.raises(InputError, match="GiB"):
        roundtrip(RoundtripRequest(smooth_ct, **asked))

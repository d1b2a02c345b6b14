"""A job that does not fit is refused before it starts, and the estimate covers what a swap really takes."""

import subprocess
import sys

import pytest

from napari_meduet.errors import InputError
from napari_meduet.pipelines import ExtractRequest, RoundtripRequest, SwapRequest, extract, roundtrip, swap
from napari_meduet.pipelines import memory as memory_module

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")

PEAK = """
import sys
from pathlib import Path
import nibabel as nib, numpy as np
from napari_meduet.models.files import load_model
from napari_meduet.pipelines import ScanChoice, SwapRequest, read_volume, swap
from napari_meduet.pipelines.memory import needed_bytes

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


@LINUX
def test_the_limit_of_the_process_is_known():
    script = (
        "import resource\n"
        "from napari_meduet.pipelines.memory import _of_process\n"
        "assert _of_process() is None\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_AS)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30, hard))\n"
        "print(_of_process() / 2**30)\n"
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


def test_a_system_that_does_not_say_refuses_nothing(tiny_model, smooth_ct, monkeypatch):
    monkeypatch.setattr(memory_module, "free_bytes", lambda: None)
    assert extract(ExtractRequest([smooth_ct], model=tiny_model, device="cpu")).scans

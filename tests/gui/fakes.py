"""Stand-ins for the swap pipeline, for tests of what surrounds it: threads, buttons and layers."""

import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from napari_meduet.pipelines.safety import Measurements, judge


def a_report(**changes):
    """A report nothing speaks against, unless `changes` say so."""
    measured = Measurements(
        modality="CT",
        unit="HU",
        value_range=2500.0,
        change=12.0,
        noise_floor=3.0,
        edge_displacement_mm=0.3,
        lost_edges=0.01,
        gradient_correlation=0.99,
        roundtrip_psnr_db=34.0,
        style_distance=1.0,
        clipped_fraction=0.0,
    )
    return judge(replace(measured, **changes))


class FakeSession:
    """Adds 100 times the strength to every voxel."""

    def __init__(self, request, measured):
        self.request, self.measured = request, measured

    def render(self, strength=None, *, texture=None, on_progress=lambda fraction, doing: None):
        strength = self.request.strength if strength is None else strength
        on_progress(0.5, "composing the result")
        content = self.request.content
        return SimpleNamespace(
            volume=content.with_values(content.values() + np.float32(100 * strength)),
            report=a_report(**self.measured),
            provenance={"synthetic": True, "kind": "translated", "device": "cpu", "strength": strength},
        )


class FakePipeline:
    """`open_swap` that takes as long as `steps` times 20 ms, and keeps count of how it is called."""

    def __init__(self, steps=3, raises=None):
        self.steps, self.raises = steps, raises
        self.calls = 0
        self.measured = {}  # what the report says beside what is fine
        self.is_cancelled = False
        self.gate = threading.Event()  # clear: waits in the middle until it is set
        self.gate.set()

    def open_swap(self, request, on_progress):
        self.calls += 1
        self.request = weakref.ref(request)
        try:
            for step in range(self.steps):
                on_progress(step / self.steps, "Encoding the scan")
                time.sleep(0.02)
            while not self.gate.wait(0.02):
                on_progress(0.5, "Waiting")
        except BaseException:
            self.is_cancelled = True
            raise
        if self.raises is not None:
            raise self.raises
        return FakeSession(request, self.measured)

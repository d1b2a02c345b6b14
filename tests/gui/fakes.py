"""Fake pipelines, for tests of the threads, buttons and layers around them."""

import shutil
import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

from napari_meduet.errors import Cancelled, InputError
from napari_meduet.models.folders import demo_model_path
from napari_meduet.pipelines.segmentation.finetuned import TaughtSoFar
from napari_meduet.pipelines.segmentation.label_statistics import label_volumes
from napari_meduet.pipelines.segmentation.session import SegmentationResult
from napari_meduet.pipelines.style_swap.safety import Measurements, judge
from napari_meduet.pipelines.synthesis.outputs import GuidanceGrid, Preview, SynthesisResult
from napari_meduet.volumes.volume import Volume


def a_report(**changes):
    """Return a report that passes, with `changes` to its measurements."""
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
    """A fake `open_swap` that takes `steps` times 20 ms and counts its calls."""

    def __init__(self, steps=3, raises=None):
        self.steps, self.raises = steps, raises
        self.calls = 0
        self.measured = {}  # measurements that differ from a passing report
        self.is_cancelled = False
        self.gate = threading.Event()  # while it is clear, the job waits
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


class FakeSynthesisSession:
    """Makes volumes of one value. The value of a preview is its step."""

    def __init__(self, pipeline, request):
        self.pipeline, self.request, self.seed = pipeline, request, request.seed

    def with_style(self, style, on_progress=lambda fraction, doing: None):
        return FakeSynthesisSession(self.pipeline, replace(self.request, style=style))

    def sample(self, *, on_progress, on_preview, **changes):
        request = replace(self.request, **changes)
        steps, step = request.num_steps, 0
        try:
            for step in range(1, self.pipeline.steps + 1):
                on_progress(step / steps, "denoising")
                on_preview(Preview(sample=0, step=step, num_steps=steps, volume=a_block(step)))
                time.sleep(0.02)
            while not self.pipeline.gate.wait(0.02):
                on_progress(0.5, "denoising")
            step = steps
        except Cancelled:
            self.pipeline.is_cancelled = True
            if step == 0:
                raise
        if self.pipeline.raises is not None:
            raise self.pipeline.raises
        parameters = {"steps": steps, "steps_done": step, "is_partial": step < steps, "count": request.count}
        records = [
            {"synthetic": True, "kind": "generated", "seed": request.seed + number}
            | {"parameters": parameters | {"number": number + 1}}
            for number in range(request.count if step == steps else 1)
        ]
        samples = tuple(replace(a_block(100 + n), synthetic=record) for n, record in enumerate(records))
        return SynthesisResult(
            samples=samples, provenances=tuple(records), is_partial=step < steps, warnings=()
        )

    def guidance_grid(self, content_weights, style_weights, *, on_progress):
        on_progress(0.5, "denoising")
        slices = np.random.default_rng(0).normal(40, 30, (len(content_weights), len(style_weights), 10, 12))
        return GuidanceGrid(
            content_weights=tuple(content_weights),
            style_weights=tuple(style_weights),
            slices=slices,
            spacing_mm=1.5,
        )


def a_block(value):
    """Return a volume of one value at the position of a synthesis."""
    voxels = np.full((12, 14, 8), value, np.int16)
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    return Volume(voxels=voxels, affine=affine, modality="CT", unit="HU", sha256=f"{value:064d}")


class FakeSynthesis(FakePipeline):
    """A fake `open_synthesis`, and a pace of one second per step."""

    def open_synthesis(self, request, on_progress):
        self.calls += 1
        self.request = weakref.ref(request)
        on_progress(0.0, "reading the model")
        return FakeSynthesisSession(self, request)

    @staticmethod
    def measured_pace(request):
        return SimpleNamespace(seconds=lambda request: float(request.steps))


class FakeSegmentation(FakePipeline):
    """A fake `segment` that finds two structures: values above 40 and values below 0."""

    names: ClassVar = {1: "bright", 2: "dark"}

    def segment(self, request, on_progress):
        self.calls += 1
        self.request = weakref.ref(request)
        self._work(on_progress)
        return self.found(request.scan)

    def _work(self, on_progress):
        try:
            for step in range(self.steps):
                on_progress(step / self.steps, "looking at the scan")
                time.sleep(0.02)
            while not self.gate.wait(0.02):
                on_progress(0.5, "looking at the scan")
        except Cancelled:
            self.is_cancelled = True
            raise
        if self.raises is not None:
            raise self.raises

    def found(self, scan):
        values = scan.values()
        labels = np.where(values > 40, 1, np.where(values < 0, 2, 0)).astype(np.uint8)
        record = {"synthetic": False, "kind": "segmentation", "labels": {"1": "bright", "2": "dark"}}
        return SegmentationResult(
            labels=labels,
            names=dict(self.names),
            statistics=label_volumes(labels, scan.affine, self.names),
            volume=scan,
            provenance=record,
            warnings=(),
        )


class FakeTeaching(FakeSegmentation):
    """`teach` that moves its curve every 20 ms until its steps are over, `should_stop`, or Cancel."""

    def teach(self, request, on_progress, *, on_curve, should_stop):
        self.calls += 1
        self.finetune_request = request
        self.painted = [labels.copy() for _, labels in request.examples]
        self.was_stopped = False
        try:
            step = 0
            while step < self.steps or not self.gate.is_set():
                step += 1
                on_progress(0.1, "learning")
                on_curve(TaughtSoFar(step=step, loss=2 / step, dice=1 - 1 / step, seconds=step / 50))
                self.was_stopped = should_stop()
                if self.was_stopped:
                    break
                time.sleep(0.02)
        except Cancelled:
            self.is_cancelled = True
            raise

        if self.raises is not None:
            raise self.raises
        return FakeTaught(self)


class FakeTaught:
    """A fake fine-tuned segmenter that finds the same two structures."""

    modalities = ("CT",)

    def __init__(self, pipeline):
        self.pipeline = pipeline

    def segment(self, volume, *, on_progress):
        on_progress(0.5, "looking at the scan")
        if volume.voxels.max() > 5000:
            raise InputError("This scan is much too bright.")
        return self.pipeline.found(volume)

    def save(self, folder, name):
        shutil.copytree(demo_model_path(), folder)

"""Reconstruction of test scans by the tokenizer, compared with the best linear code of the same size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import mean_estimate
from meduet_training.evaluation.metrics.linear_code import LinearCode
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table, case_name
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.common.encoding import PreparedScan, prepare_scan
from napari_meduet.pipelines.common.measures import psnr, ssim
from napari_meduet.pipelines.reconstruction import CT_RANGE_HU, roundtrip
from napari_meduet.pipelines.requests import RoundtripRequest
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import body_mask

DESCRIPTION = (
    "PSNR and SSIM of decode(encode(scan)) inside the body, by the tokenizer alone. The range is -1000 to "
    "1000 HU for CT and the 0.5th to 99.5th percentile of the foreground for MR. They are measured on the "
    "1.5 mm grid and on the grid of the scan. The comparison is the best linear code with {channels} "
    "coefficients for each chunk of {chunk} voxels (PCA of the train split), on the same scans."
)
GOAL_PSNR_DB, GOAL_SSIM = 32.0, 0.90


def fidelity_section(
    model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int
) -> EvaluationSection:
    """Measure the round trip of each test scan."""
    loaded = load_model(model, device)
    stride, channels = loaded.tokenizer.stride, loaded.tokenizer.channels
    metrics, rows = [], []
    for modality in ("CT", "MR"):

        def prepared(scan: Scan) -> PreparedScan:
            return prepare_scan(loaded, read_volume(scan.path, modality=scan.modality))

        code = LinearCode.fit(
            (_on_working_grid(prepared(scan)) for scan in train if scan.modality == modality),
            stride,
            channels,
        )
        measured, patients = [], []
        for scan in (scan for scan in test if scan.modality == modality):
            volume = read_volume(scan.path, modality=scan.modality)
            request = RoundtripRequest(volume, through="tokenizer", model=model, device=device)
            likenesses = roundtrip(request).likenesses
            chosen = [each for each in likenesses if each.where.endswith("HU") == (modality == "CT")]
            values = [value for each in chosen for value in (each.psnr_db, each.ssim)]  # working, native grid
            measured.append([*values, *_linear(code, prepared(scan))])
            patients.append(scan.patient)
            rows.append((case_name(scan), scan.domain, *measured[-1]))
        metrics += _metrics(modality, np.array(measured), patients, seed)
    columns = (
        "scan",
        "domain",
        "PSNR",
        "SSIM",
        "PSNR native grid",
        "SSIM native grid",
        "PSNR PCA",
        "SSIM PCA",
        "PSNR PCA native grid",
    )
    return EvaluationSection(
        title="Tokenizer round trip",
        description=DESCRIPTION.format(channels=channels, chunk="×".join(map(str, stride))),
        metrics=tuple(metrics),
        tables=(Table(title="Single scans", columns=columns, rows=rows),),
        seed=seed,
    )


def _metrics(modality: str, measured: np.ndarray, patients: list[str], seed: int) -> list[Metric]:
    """Return the means over the scans of one modality."""
    means = [mean_estimate(column, patients, seed) for column in measured.T]
    linear = f"PCA {means[4].value:.1f} dB, SSIM {means[5].value:.3f}"
    return [
        Metric(
            name=f"{modality}, 1.5 mm: PSNR, dB", estimate=means[0], at_least=GOAL_PSNR_DB, comparison=linear
        ),
        Metric(name=f"{modality}, 1.5 mm: SSIM", estimate=means[1], at_least=GOAL_SSIM),
        Metric(
            name=f"{modality}, native grid: PSNR, dB",
            estimate=means[2],
            comparison=f"PCA {means[6].value:.1f} dB",
        ),
        Metric(name=f"{modality}, native grid: SSIM", estimate=means[3]),
    ]


def _on_working_grid(scan: PreparedScan) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that are compared, scaled to [0, 1], and the body mask, on the working grid."""
    return _scaled(scan, scan.grid.to_working(scan.values)), scan.body


def _scaled(scan: PreparedScan, values: np.ndarray) -> np.ndarray:
    """Scale values to [0, 1] by the range of their modality."""
    if scan.volume.modality == "MR":
        return scan.profile.encode(values)
    low, high = CT_RANGE_HU
    return (np.clip(values, low, high) - low) / (high - low)


def _linear(code: LinearCode, scan: PreparedScan) -> tuple[float, float, float]:
    """Return PSNR and SSIM of the linear code on the working grid, and PSNR on the grid of the scan."""
    truth, body = _on_working_grid(scan)
    reconstruction = np.clip(code.reconstruct(truth), 0.0, 1.0)
    native, native_body = _scaled(scan, scan.values), body_mask(scan.values, scan.volume.modality)
    return (
        psnr(truth, reconstruction, 1.0, body),
        ssim(truth, reconstruction, 1.0, body),
        psnr(native, scan.grid.to_native(reconstruction), 1.0, native_body),
    )

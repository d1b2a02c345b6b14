"""What the tokenizer keeps of scans it never saw, beside the best linear code of the same size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import mean_estimate
from meduet_training.evaluation.metrics.linear_code import LinearCode
from meduet_training.evaluation.sections import Metric, EvaluationSection, Table, case_name
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.common.encoding import PreparedScan, prepare_scan
from napari_meduet.pipelines.common.measures import psnr, ssim
from napari_meduet.pipelines.reconstruction import CT_RANGE_HU, roundtrip
from napari_meduet.pipelines.requests import RoundtripRequest
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import body_mask

HOW = (
    "decode(encode(scan)) by the tokenizer alone, PSNR and SSIM inside the body: CT over -1000 to 1000 HU,"
    " MR over the 0.5–99.5 percentiles of its foreground; on the 1.5 mm grid, and back on the scan's own. "
    "Beside it the best linear code of four coefficients for each 4×4×4 cube (PCA of the train split) on "
    "the same scans."
)
GOAL_PSNR_DB, GOAL_SSIM = 32.0, 0.90


def fidelity_part(model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int) -> EvaluationSection:
    """Round trip of each test scan."""
    loaded = load_model(model, device)
    metrics, rows = [], []
    for modality in ("CT", "MR"):

        def prepared(scan: Scan) -> PreparedScan:
            return prepare_scan(loaded, read_volume(scan.path, modality=scan.modality))

        code = LinearCode.fitted(
            _on_working_grid(prepared(scan)) for scan in train if scan.modality == modality
        )
        found, patients = [], []
        for scan in (scan for scan in test if scan.modality == modality):
            volume = read_volume(scan.path, modality=scan.modality)
            request = RoundtripRequest(volume, through="tokenizer", model=model, device=device)
            likenesses = roundtrip(request).likenesses
            wanted = [
                one for one in likenesses if one.where.endswith("HU" if modality == "CT" else "profile units")
            ]
            numbers = [
                number for one in wanted for number in (one.psnr_db, one.ssim)
            ]  # working grid, own grid
            found.append([*numbers, *_linear(code, prepared(scan))])
            patients.append(scan.patient)
            rows.append((case_name(scan), scan.domain, *found[-1]))
        metrics += _figures(modality, np.array(found), patients, seed)
    columns = (
        "scan",
        "domain",
        "PSNR",
        "SSIM",
        "PSNR own grid",
        "SSIM own grid",
        "PSNR PCA",
        "SSIM PCA",
        "PSNR PCA own grid",
    )
    return EvaluationSection(
        title="Tokenizer round trip",
        how=HOW,
        metrics=tuple(metrics),
        tables=(Table(title="Single scans", columns=columns, rows=rows),),
        seed=seed,
    )


def _figures(modality: str, found: np.ndarray, patients: list[str], seed: int) -> list[Metric]:
    """Means over the scans of one modality."""
    means = [mean_estimate(column, patients, seed) for column in found.T]
    linear = f"PCA {means[4].value:.1f} dB, SSIM {means[5].value:.3f}"
    return [
        Metric(what=f"{modality}, 1.5 mm: PSNR, dB", estimate=means[0], at_least=GOAL_PSNR_DB, beside=linear),
        Metric(what=f"{modality}, 1.5 mm: SSIM", estimate=means[1], at_least=GOAL_SSIM),
        Metric(
            what=f"{modality}, own grid: PSNR, dB", estimate=means[2], beside=f"PCA {means[6].value:.1f} dB"
        ),
        Metric(what=f"{modality}, own grid: SSIM", estimate=means[3]),
    ]


def _on_working_grid(scan: PreparedScan) -> tuple[np.ndarray, np.ndarray]:
    """What is compared, as shares of its range, and where."""
    return _shares(scan, scan.grid.to_working(scan.values)), scan.body


def _shares(scan: PreparedScan, values: np.ndarray) -> np.ndarray:
    if scan.volume.modality == "MR":
        return scan.profile.encode(values)
    low, high = CT_RANGE_HU
    return (np.clip(values, low, high) - low) / (high - low)


def _linear(code: LinearCode, scan: PreparedScan) -> tuple[float, float, float]:
    """PSNR and SSIM of the linear code on the working grid, PSNR on the scan's own."""
    truth, body = _on_working_grid(scan)
    restored = np.clip(code.restored(truth), 0.0, 1.0)
    native, native_body = _shares(scan, scan.values), body_mask(scan.values, scan.volume.modality)
    return (
        psnr(truth, restored, 1.0, body),
        ssim(truth, restored, 1.0, body),
        psnr(native, scan.grid.to_native(restored), 1.0, native_body),
    )

"""The safety report of a swap: unwanted changes, in numbers and in words (specification, section 8).

A style swap must change how a scan looks and leave what it shows. This file judges measurements; it computes
those that need only the scan before and after. What needs the network (noise floor, round trip, style
distance) is measured by `session.py` and handed in.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Verdict = Literal["pass", "check", "refuse"]


@dataclass(frozen=True)
class Limits:
    """Up to `check` a figure passes; up to `refuse` a person should look; beyond, nobody should use it."""

    check: float
    refuse: float = math.inf


# Half a voxel and one voxel of the working grid: beyond it, shapes differ.
EDGE_DISPLACEMENT_MM = Limits(0.75, 1.5)
# Chance crossings stay below one in twenty; one edge in five is anatomy gone.
LOST_EDGES = Limits(0.05, 0.20)
# What gradients lack to a correlation of 1. This project demands 0.95 of itself. An MR sequence changes
# contrasts by its nature, so there a low correlation is worth a look and never a refusal.
UNCORRELATED_GRADIENTS = {"CT": Limits(0.05, 0.30), "MR": Limits(0.05)}
# Radiologists read a rise of 10 to 20 HU as contrast enhancement.
DRIFT_HU = Limits(10.0, 20.0)
# MR has no unit: shares of the scan's own intensity range.
DRIFT_SHARE = Limits(0.05, 0.25)
# Well below what the tokenizer reaches on scans like those it was trained on.
ROUNDTRIP_DB = 26.0
# In spreads of a known style: outside of what was ever seen.
STYLE_DISTANCE = Limits(3.0, 6.0)
# M-03: with more of the body outside the profile, the profile was not made for this scan.
CLIPPED = Limits(0.05)


@dataclass(frozen=True, kw_only=True)
class LabelDrift:
    """Mean value under one label before and after, in the scan's unit."""

    label: int
    num_voxels: int
    before: float
    after: float

    @property
    def drift(self) -> float:
        """How far the mean moved."""
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What was measured of one swap.

    Attributes:
        modality: CT or MR.
        unit: of `change`, `noise_floor` and the drifts: HU or arbitrary.
        value_range: width of the intensity profile in that unit.
        change: mean absolute change of the body by the style tokens (texture apart).
        noise_floor: the same between two halves of the content's own sub-volumes; None for a full decode.
        edge_displacement_mm: 95th percentile.
        lost_edges: share of strong edges without a counterpart.
        gradient_correlation: of gradient sizes in the body.
        label_drift: one entry per label, where labels were given.
        roundtrip_psnr_db: of the tokenizer alone on this scan's sub-volumes, in profile units.
        style_distance: from the nearest style the model knows, in units of that style's spread; None if it
            knows none.
        clipped_fraction: body voxels that the profile cannot hold, and that the swap therefore left alone.
        is_extrapolated: the strength lies outside [0, 1].
    """

    modality: str
    unit: str
    value_range: float
    change: float
    noise_floor: float
    edge_displacement_mm: float
    lost_edges: float
    gradient_correlation: float
    roundtrip_psnr_db: float
    style_distance: float | None
    clipped_fraction: float
    is_extrapolated: bool = False
    label_drift: tuple[LabelDrift, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SafetyReport:
    """The measurements of a swap, and what they amount to.

    Attributes:
        verdict: pass: nothing measured speaks against the result; check: look at what the reasons name before
            using it; refuse: do not use it.
        reasons: one sentence each; at least one, whatever the verdict.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    measurements: Measurements

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data for a sidecar."""
        measurements = asdict(self.measurements)
        drifts = zip(measurements["label_drift"], self.measurements.label_drift, strict=True)
        measurements["label_drift"] = [{**entry, "drift": record.drift} for entry, record in drifts]
        return {"verdict": self.verdict, "reasons": list(self.reasons), "measurements": measurements}


def drift_under_labels(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> tuple[LabelDrift, ...]:
    """Mean values before and after under every label; 0 is background and left out."""
    found, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    means = [np.bincount(inverse, weights=values.reshape(-1)) / counts for values in (before, after)]
    return tuple(
        LabelDrift(label=int(label), num_voxels=int(count), before=float(old), after=float(new))
        for label, count, old, new in zip(found, counts, *means, strict=True)
        if label != 0
    )


def judge(measured: Measurements) -> SafetyReport:
    """The verdict on a swap, with a reason for every measurement that is out of bounds."""
    m = measured
    checks: list[str] = []
    refusals: list[str] = []

    def limit(figure: float, limits: Limits, sentence: str) -> None:
        if figure > limits.check:
            (refusals if figure > limits.refuse else checks).append(sentence)

    limit(
        m.edge_displacement_mm,
        EDGE_DISPLACEMENT_MM,
        f"5 % of the edges moved by more than {m.edge_displacement_mm:.2f} mm: shapes may have changed.",
    )
    limit(
        m.lost_edges, LOST_EDGES, f"{m.lost_edges:.0%} of the strong edges have no counterpart in the result."
    )
    limit(
        1 - m.gradient_correlation,
        UNCORRELATED_GRADIENTS[m.modality],
        f"Gradients of scan and result correlate at {m.gradient_correlation:.3f} only: "
        "tissues gained or lost contrast against each other.",
    )
    for drift in m.label_drift:
        share = drift.drift / m.value_range
        if m.modality == "CT":
            sentence = f"Under label {drift.label} the mean drifted by {drift.drift:+.0f} HU."
            limit(abs(drift.drift), DRIFT_HU, sentence)
        else:
            sentence = f"Under label {drift.label} the mean drifted by {share:+.0%} of the intensity range."
            limit(abs(share), DRIFT_SHARE, sentence)
    limit(
        -m.roundtrip_psnr_db,
        Limits(-ROUNDTRIP_DB),
        f"The tokenizer restores this scan at {m.roundtrip_psnr_db:.1f} dB only: "
        "it was not made for such scans.",
    )
    if m.style_distance is not None:
        limit(
            m.style_distance,
            STYLE_DISTANCE,
            f"The style lies {m.style_distance:.1f} spreads away from every style the model knows.",
        )
    limit(
        m.clipped_fraction,
        CLIPPED,
        f"{m.clipped_fraction:.0%} of the body lie outside the intensity profile and were left as they are.",
    )
    if 0 < m.change <= m.noise_floor:
        unit = " HU" if m.unit == "HU" else ""
        checks.append(
            f"The style changed the body by {m.change:.3g}{unit} on average, no more than two halves "
            f"of the same scan differ by ({m.noise_floor:.3g}): what moved may be anatomy, not style."
        )
    if m.is_extrapolated:
        checks.append("The strength lies outside 0 to 1: the style is extrapolated beyond both scans.")

    if refusals:
        return SafetyReport(verdict="refuse", reasons=(*refusals, *checks), measurements=m)
    if checks:
        return SafetyReport(verdict="check", reasons=tuple(checks), measurements=m)
    fine = (
        f"Edges stayed within {m.edge_displacement_mm:.2f} mm and gradients correlate at "
        f"{m.gradient_correlation:.3f}; nothing measured speaks against this result."
    )
    return SafetyReport(verdict="pass", reasons=(fine,), measurements=m)

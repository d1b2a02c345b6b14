"""Probes, silhouettes and t-SNE maps of the factors of many samples (specification, section 14).

The style s0 should predict the domain, and the content c0 should not. Probes and silhouettes are the metrics,
with intervals over patients. The t-SNE map is a picture of the same vectors; distances between its clusters
have no meaning. samples.py and validation.py beside this file compute the factors.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import silhouette_samples
from sklearn.preprocessing import StandardScaler

from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate
from meduet_training.evaluation.metrics.probes import Probe, probe
from meduet_training.evaluation.sections import EvaluationSection, Metric
from napari_meduet.volumes.files import write_atomically

MIN_MAP_SAMPLES = 8  # t-SNE needs neighbourhoods
PERPLEXITY = 30.0  # scikit-learn's default; smaller for few samples
FACTORS_JSON, FACTORS_CSV = "factors.json", "factors.csv"


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorSamples:
    """Pooled factors of N crops or sub-volumes.

    Attributes:
        content, style: c0 (N, Dc) and s0 (N, Ds).
        domains, patients: (N,), strings; patients are hashes.
        extractor_sha256: digest of the weights that computed the factors.
        source: a sentence that describes the samples.
    """

    content: np.ndarray
    style: np.ndarray
    domains: np.ndarray
    patients: np.ndarray
    extractor_sha256: str
    source: str

    def __len__(self) -> int:
        return len(self.domains)


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorResult:
    """Metrics and map of one factor.

    Attributes:
        probe: None where fewer than two domains have two patients.
        silhouette: silhouette by domain of the standardised vectors, from -1 to 1; None for fewer than two
            domains.
        embedding: (N, 2), t-SNE; None for fewer than 8 samples.
    """

    probe: Probe | None
    silhouette: Estimate | None
    embedding: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorAnalysis:
    """Results of content and style.

    Attributes:
        num_probed: number of samples whose domain has at least two patients; only these are probed.
        why_no_probe: a sentence with the reason for missing probes; empty if there are probes.
    """

    samples: FactorSamples
    content: FactorResult
    style: FactorResult
    seed: int
    num_probed: int
    why_no_probe: str

    def as_data(self) -> dict[str, Any]:
        """Return everything but the single samples, as JSON types."""
        return {
            "seed": self.seed,
            "num_samples": len(self.samples),
            "num_patients": len(np.unique(self.samples.patients)),
            "domains": _counts(self.samples.domains),
            "num_probed": self.num_probed,
            "why_no_probe": self.why_no_probe,
            "extractor_sha256": self.samples.extractor_sha256,
            "source": self.samples.source,
            "factors": {
                name: {
                    "probe": asdict(result.probe) if result.probe else None,
                    "silhouette": asdict(result.silhouette) if result.silhouette else None,
                }
                for name, result in (("content", self.content), ("style", self.style))
            },
        }

    def as_markdown(self) -> str:
        """Return metrics, samples and extractor as Markdown, for the terminal."""
        metrics = []
        for name, result in (("style s0", self.style), ("content c0", self.content)):
            if result.probe:
                comparison = f"{result.probe.num_domains} domains, {result.probe.num_folds} folds; "
                comparison += f"chance {result.probe.chance:.3f}, majority {result.probe.majority:.3f}"
                metric = f"domain probe of {name}, balanced accuracy"
                metrics.append(Metric(name=metric, estimate=result.probe.accuracy, comparison=comparison))
            if result.silhouette:
                metrics.append(Metric(name=f"silhouette of {name} by domain", estimate=result.silhouette))
        description = [
            self.samples.source,
            self.why_no_probe,
            f"Extractor {self.samples.extractor_sha256[:16]}.",
        ]
        title = "The domain in style and content"
        return EvaluationSection(
            title=title,
            description=" ".join(filter(None, description)),
            metrics=tuple(metrics),
            seed=self.seed,
        ).as_markdown()


def analyse_factors(samples: FactorSamples, seed: int, *, with_maps: bool = True) -> FactorAnalysis:
    """Compute probe, silhouette and map of content and style.

    Domains with one patient are left out of the probes, because such a probe may recognise the patient.

    Args:
        with_maps: whether to compute the t-SNE maps, which takes most of the time.
    """
    probed = _with_two_patients(samples)
    why_no_probe = _why_no_probe(samples, probed)

    def result(vectors: np.ndarray) -> FactorResult:
        if not np.isfinite(vectors).all():
            return FactorResult(probe=None, silhouette=None, embedding=None)
        return FactorResult(
            probe=None
            if why_no_probe
            else probe(vectors[probed], samples.domains[probed], samples.patients[probed], seed),
            silhouette=_silhouette(vectors, samples, seed),
            embedding=_embedding(vectors, seed) if with_maps else None,
        )

    return FactorAnalysis(
        samples=samples,
        content=result(samples.content),
        style=result(samples.style),
        seed=seed,
        num_probed=0 if why_no_probe else int(probed.sum()),
        why_no_probe=why_no_probe,
    )


def write_factors(analysis: FactorAnalysis, folder: Path) -> None:
    """Write the metrics to `factors.json`, and vectors and map position of each sample to `factors.csv`."""
    with write_atomically(folder / FACTORS_JSON, overwrite=True) as temporary:
        temporary.write_text(json.dumps(analysis.as_data(), indent=2, allow_nan=False) + "\n", "utf-8")
    samples = analysis.samples
    columns: dict[str, np.ndarray] = {"domain": samples.domains, "patient": samples.patients}
    for name, vectors, result in (
        ("content", samples.content, analysis.content),
        ("style", samples.style, analysis.style),
    ):
        if result.embedding is not None:
            columns |= {f"{name}_map_{axis}": result.embedding[:, k] for k, axis in enumerate("xy")}
        columns |= {f"{name}_{k}": vectors[:, k] for k in range(vectors.shape[1])}
    with (
        write_atomically(folder / FACTORS_CSV, overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(_cells(column) for column in columns.values()), strict=True))


def _with_two_patients(samples: FactorSamples) -> np.ndarray:
    """Return whether the domain of each sample (N,) has at least two patients."""
    names, inverse = np.unique(samples.domains.astype(str), return_inverse=True)
    patients = [len(np.unique(samples.patients[inverse == k].astype(str))) for k in range(len(names))]
    return np.asarray(patients)[inverse] > 1


def _why_no_probe(samples: FactorSamples, probed: np.ndarray) -> str:
    """Return a sentence with the reason for missing probes; empty if probes are possible."""
    if not (np.isfinite(samples.content).all() and np.isfinite(samples.style).all()):
        return "The factors of the network are not finite, so there are no probes."
    num_domains = len(np.unique(samples.domains[probed].astype(str)))
    if num_domains >= 2:
        return ""
    return (
        f"A probe needs two domains with two patients each; {num_domains} of "
        f"{len(np.unique(samples.domains.astype(str)))} domains {'has' if num_domains == 1 else 'have'} "
        "two patients."
    )


def _silhouette(vectors: np.ndarray, samples: FactorSamples, seed: int) -> Estimate | None:
    names = samples.domains.astype(str)
    if not 2 <= len(np.unique(names)) < len(names):
        return None
    single = np.asarray(silhouette_samples(StandardScaler().fit_transform(vectors), names))
    return mean_estimate(single.tolist(), [str(patient) for patient in samples.patients], seed)


def _embedding(vectors: np.ndarray, seed: int) -> np.ndarray | None:
    if len(vectors) < MIN_MAP_SAMPLES:
        return None
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    from sklearn.manifold import TSNE  # slow to import, and needed only at the end of a run

    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return tsne.fit_transform(StandardScaler().fit_transform(vectors))


def _counts(values: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(values.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _cells(column: np.ndarray) -> list[str]:
    if column.dtype.kind == "f":
        return [f"{number:.6g}" for number in column]
    return [str(value) for value in column]

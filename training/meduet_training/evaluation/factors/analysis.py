"""What the factors of many crops know of the domain: probes, silhouettes, and a map for the eye (specification, section 14).

The domain should be legible in the style s0 and not in the content c0. Numbers come first: a probe judged on
patients that it did not learn from, and a silhouette, both with an interval over patients. The t-SNE map is a
picture of the same vectors; distances between its islands mean nothing.
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
from meduet_training.evaluation.sections import Figure, Part
from napari_meduet.volumes.files import write_atomically

SMALLEST_MAP = 8  # samples: fewer have no neighbourhoods to map
PERPLEXITY = 30.0  # scikit-learn's default; less where there are few samples
FACTORS_JSON, FACTORS_CSV = "factors.json", "factors.csv"


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorSamples:
    """Pooled factors of N crops or sub-volumes.

    Attributes:
        content, style: (N, Dc) and (N, Ds), c0 and s0 of each.
        domains, patients: (N,) words; patients are hashes.
        extractor_sha256: of the weights that made them.
        source: a sentence: which samples these are.
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
class FactorFindings:
    """What one factor knows.

    Attributes:
        probe: None where too few domains have two patients.
        silhouette: by domain, of the standardised vectors, from -1 to 1; None for fewer than two domains.
        embedding: (N, 2), t-SNE; None for fewer than 8 samples.
    """

    probe: Probe | None
    silhouette: Estimate | None
    embedding: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorAnalysis:
    """Content and style beside each other.

    Attributes:
        num_probed: samples whose domain has at least two patients; the probes are about them.
        why_no_probe: a sentence, empty where there are probes.
    """

    samples: FactorSamples
    content: FactorFindings
    style: FactorFindings
    seed: int
    num_probed: int
    why_no_probe: str

    def as_data(self) -> dict[str, Any]:
        """All but the single samples, as JSON types."""
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
                    "probe": asdict(found.probe) if found.probe else None,
                    "silhouette": asdict(found.silhouette) if found.silhouette else None,
                }
                for name, found in (("content", self.content), ("style", self.style))
            },
        }

    def as_markdown(self) -> str:
        """For the terminal, with all that a figure must not be quoted without."""
        figures = []
        for name, found in (("style s0", self.style), ("content c0", self.content)):
            if found.probe:
                beside = f"{found.probe.num_domains} domains, {found.probe.num_folds} folds; "
                beside += f"chance {found.probe.chance:.3f}, majority {found.probe.majority:.3f}"
                what = f"domain probe of {name}, balanced accuracy"
                figures.append(Figure(what=what, estimate=found.probe.accuracy, beside=beside))
            if found.silhouette:
                figures.append(Figure(what=f"silhouette of {name} by domain", estimate=found.silhouette))
        how = [self.samples.source, self.why_no_probe, f"Extractor {self.samples.extractor_sha256[:16]}."]
        title = "The domain in style and content"
        return Part(
            title=title, how=" ".join(filter(None, how)), figures=tuple(figures), seed=self.seed
        ).as_markdown()


def analyse_factors(samples: FactorSamples, seed: int, *, with_maps: bool = True) -> FactorAnalysis:
    """Probe, silhouette and map of content and of style.

    A domain of one patient takes no part in the probes: whoever tells it may be telling the patient.

    Args:
        with_maps: draw the t-SNE maps too, which takes longer than all the rest.
    """
    probed = _with_two_patients(samples)
    why_no_probe = _why_no_probe(samples, probed)

    def findings(vectors: np.ndarray) -> FactorFindings:
        if not np.isfinite(vectors).all():
            return FactorFindings(probe=None, silhouette=None, embedding=None)
        return FactorFindings(
            probe=None
            if why_no_probe
            else probe(vectors[probed], samples.domains[probed], samples.patients[probed], seed),
            silhouette=_silhouette(vectors, samples, seed),
            embedding=_embedding(vectors, seed) if with_maps else None,
        )

    return FactorAnalysis(
        samples=samples,
        content=findings(samples.content),
        style=findings(samples.style),
        seed=seed,
        num_probed=0 if why_no_probe else int(probed.sum()),
        why_no_probe=why_no_probe,
    )


def write_factors(analysis: FactorAnalysis, folder: Path) -> None:
    """The numbers as `factors.json`; a row for each sample as `factors.csv`, vectors and map included."""
    with write_atomically(folder / FACTORS_JSON, overwrite=True) as temporary:
        temporary.write_text(json.dumps(analysis.as_data(), indent=2, allow_nan=False) + "\n", "utf-8")
    samples = analysis.samples
    columns: dict[str, np.ndarray] = {"domain": samples.domains, "patient": samples.patients}
    for name, vectors, found in (
        ("content", samples.content, analysis.content),
        ("style", samples.style, analysis.style),
    ):
        if found.embedding is not None:
            columns |= {f"{name}_map_{axis}": found.embedding[:, k] for k, axis in enumerate("xy")}
        columns |= {f"{name}_{k}": vectors[:, k] for k in range(vectors.shape[1])}
    with (
        write_atomically(folder / FACTORS_CSV, overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(_cells(column) for column in columns.values()), strict=True))


def _with_two_patients(samples: FactorSamples) -> np.ndarray:
    """(N,) whether a sample's domain has at least two patients."""
    names, inverse = np.unique(samples.domains.astype(str), return_inverse=True)
    patients = [len(np.unique(samples.patients[inverse == k].astype(str))) for k in range(len(names))]
    return np.asarray(patients)[inverse] > 1


def _why_no_probe(samples: FactorSamples, probed: np.ndarray) -> str:
    """A sentence; empty where there can be probes."""
    if not (np.isfinite(samples.content).all() and np.isfinite(samples.style).all()):
        return "The network's factors are not finite, so nothing can be read from them."
    num_domains = len(np.unique(samples.domains[probed].astype(str)))
    if num_domains >= 2:
        return ""
    return (
        f"A probe needs two domains with two patients each; of {len(np.unique(samples.domains.astype(str)))} "
        f"domains here, {num_domains} {'has' if num_domains == 1 else 'have'} that many."
    )


def _silhouette(vectors: np.ndarray, samples: FactorSamples, seed: int) -> Estimate | None:
    names = samples.domains.astype(str)
    if not 2 <= len(np.unique(names)) < len(names):
        return None
    single = np.asarray(silhouette_samples(StandardScaler().fit_transform(vectors), names))
    return mean_estimate(single.tolist(), [str(patient) for patient in samples.patients], seed)


def _embedding(vectors: np.ndarray, seed: int) -> np.ndarray | None:
    if len(vectors) < SMALLEST_MAP:
        return None
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    from sklearn.manifold import TSNE  # slow to import, and needed when a run ends

    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return tsne.fit_transform(StandardScaler().fit_transform(vectors))


def _counts(words: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(words.astype(str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _cells(column: np.ndarray) -> list[str]:
    if column.dtype.kind == "f":
        return [f"{number:.6g}" for number in column]
    return [str(word) for word in column]

"""Does a walk of at most 30 evaluations make crops as good as Euler-Maruyama's 250?

    python benchmarks/quality_per_evaluation.py --model MODEL --data DATA
    python benchmarks/quality_per_evaluation.py -n 8 --reference-steps 20 ...  # quick, to see that it runs

Held-out crops are generated anew from their own pooled content and style, once by each sampler, from the same
noise. FID and MMD to the real crops are given with bootstrap intervals over crops; so is their difference to
Euler-Maruyama's, drawn with the same crops on both sides. A sampler passes where its value lies within the
interval of Euler-Maruyama's or below. The script fails if Heun and the multistep sampler both do not.

An evaluation is one step of guidance, whatever the number of rows in it; without guidance (the default here)
each is one pass of the network.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meduet_training.evaluation.metrics.distribution_distances import (
    frechet_distance,
    median_distance,
    rbf_kernel,
    unbiased_mmd,
)
from meduet_training.evaluation.metrics.estimates import Estimate
from meduet_training.evaluation.metrics.set_estimates import set_estimate
from meduet_training.evaluation.metrics.volume_features import volume_extractor
from meduet_training.evaluation.sections import EvaluationSection, Metric
from meduet_training.evaluation.synthesis.evaluation_data import build_evaluation_data
from meduet_training.evaluation.synthesis.generated_crops import ConditionalSampler, CropConditions, decoded
from meduet_training.evaluation.synthesis.quality import by_rows, fid_estimate, mmd_estimate
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.requests import SynthesisRequest

REFERENCE = "em"
FEW = (("heun", 15), ("multistep", 29), ("multistep", 12), ("euler", 30))  # 29, 30, 13 and 30 evaluations
GOAL = {"heun 15", "multistep 29"}  # one of them within the interval, at 30 evaluations at most


def main() -> None:
    options = parsed()
    model = load_model(options.model, options.device)
    extractor = volume_extractor(options.extractor, model.device)
    sampler = ConditionalSampler(model=model, sampling=SynthesisRequest(), seed=options.seed)
    sampler = sampler.with_weights(options.weight, options.weight)
    data = build_evaluation_data(
        sampler, extractor, options.data, options.cache, options.n, options.seed, lambda text: None
    )
    crops = data.crops
    wanted = [
        CropConditions(noise=row, content=crops.content[row], style=crops.style[row])
        for row in range(len(crops))
    ]
    real = extractor.features(crops.voxels)
    length = median_distance(real)

    def made(sampler: str, steps: int) -> Float[np.ndarray, "N F"]:
        request = SynthesisRequest(
            sampler=sampler,  # type: ignore[arg-type]
            steps=steps,
            content_weight=options.weight,
            style_weight=options.weight,
        )
        began = time.perf_counter()
        latents = ConditionalSampler(model=model, sampling=request, seed=options.seed).latents(wanted)
        print(f"{sampler}, {steps} steps: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        return extractor.features(decoded(model, latents))

    reference = made(REFERENCE, options.reference_steps)
    fid, mmd = both(reference, real, length, crops.patients, options.seed)
    metrics = [
        Metric(name=f"Euler-Maruyama {options.reference_steps}: FID", estimate=fid),
        Metric(name=f"Euler-Maruyama {options.reference_steps}: MMD", estimate=mmd),
    ]
    passed = set()
    for sampler, steps in FEW:
        name, found = f"{sampler} {steps}", made(sampler, steps)
        own = both(found, real, length, crops.patients, options.seed)
        for title, estimate, of in zip(("FID", "MMD"), own, (fid, mmd), strict=True):
            more = difference(title, found, reference, real, length, crops.patients, options.seed)
            metrics.append(
                Metric(
                    name=f"{name}: {title}",
                    estimate=estimate,
                    at_most=of.high,
                    comparison=f"Euler-Maruyama plus {more.value:.3g} ({more.low:.3g} – {more.high:.3g})",
                )
            )
        if all(metric.is_reached for metric in metrics[-2:]):
            passed.add(name)
    how = (
        f"Extractor {extractor.name} ({extractor.sha256[:16]}); guidance weights {options.weight:g}; goals "
        "are the upper ends of Euler-Maruyama's intervals."
    )
    part = EvaluationSection(
        title="Quality per evaluation", description=how, metrics=tuple(metrics), seed=options.seed
    )
    print(part.as_markdown())
    if not passed & GOAL:
        sys.exit("Neither Heun nor the multistep sampler is within the interval at 30 evaluations.")


def both(
    found: Float[np.ndarray, "N F"],
    real: Float[np.ndarray, "N F"],
    length: float,
    patients: np.ndarray,
    seed: int,
) -> tuple[Estimate, Estimate]:
    """FID and MMD to the real crops."""
    return fid_estimate(found, real, patients, seed), mmd_estimate(found, real, length, patients, seed)


def difference(
    title: str,
    found: Float[np.ndarray, "N F"],
    reference: Float[np.ndarray, "N F"],
    real: Float[np.ndarray, "N F"],
    length: float,
    patients: np.ndarray,
    seed: int,
) -> Estimate:
    """How much farther from the real crops than the reference, the same crops drawn on both sides."""
    if title == "FID":
        return set_estimate(
            by_rows(
                lambda rows: (
                    frechet_distance(found[rows], real[rows]) - frechet_distance(reference[rows], real[rows])
                )
            ),
            patients,
            seed,
        )
    sets = [
        [rbf_kernel(*pair, length) for pair in ((one, one), (real, real), (one, real))]
        for one in (found, reference)
    ]
    return set_estimate(
        lambda counts: unbiased_mmd(*sets[0], counts, counts) - unbiased_mmd(*sets[1], counts, counts),
        patients,
        seed,
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("src/napari_meduet/models/demo"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("caches/factors"))
    parser.add_argument("-n", type=int, default=64, help="crops of each sampler")
    parser.add_argument("--reference-steps", type=int, default=250)
    parser.add_argument("--weight", type=float, default=0.0, help="of both factors' guidance")
    parser.add_argument("--extractor", type=Path, help="MedicalNet's ResNet-50")
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()

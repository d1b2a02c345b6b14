"""Compare the quality of samplers with at most 30 evaluations with that of Euler-Maruyama with 250 steps.

    python benchmarks/quality_per_evaluation.py --model MODEL --data DATA
    python benchmarks/quality_per_evaluation.py -n 8 --reference-steps 20 ...  # quick, for a test of the
    script

For each held-out crop, each sampler generates a crop from the same noise and from the crop's own pooled
content and style. The script prints FID and MMD to the real crops with bootstrap intervals over patients, and
their differences to Euler-Maruyama, paired over the same crops. A sampler passes if its values are not above
the interval of Euler-Maruyama. The script fails if neither Heun nor the multistep sampler passes.

An evaluation is one call of the guided prediction, with any number of rows. Without guidance, which is the
default of this script, an evaluation is one pass of the network.
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
GOAL = {"heun 15", "multistep 29"}  # one of them must pass, with at most 30 evaluations


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
    conditions = [
        CropConditions(noise=row, content=crops.content[row], style=crops.style[row])
        for row in range(len(crops))
    ]
    real = extractor.features(crops.voxels)
    length = median_distance(real)

    def generated_features(sampler: str, steps: int) -> Float[np.ndarray, "N F"]:
        request = SynthesisRequest(
            sampler=sampler,  # type: ignore[arg-type]
            steps=steps,
            content_weight=options.weight,
            style_weight=options.weight,
        )
        began = time.perf_counter()
        latents = ConditionalSampler(model=model, sampling=request, seed=options.seed).latents(conditions)
        print(f"{sampler}, {steps} steps: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        return extractor.features(decoded(model, latents))

    reference = generated_features(REFERENCE, options.reference_steps)
    fid, mmd = distances(reference, real, length, crops.patients, options.seed)
    metrics = [
        Metric(name=f"Euler-Maruyama {options.reference_steps}: FID", estimate=fid),
        Metric(name=f"Euler-Maruyama {options.reference_steps}: MMD", estimate=mmd),
    ]
    passed = set()
    for sampler, steps in FEW:
        name, found = f"{sampler} {steps}", generated_features(sampler, steps)
        own = distances(found, real, length, crops.patients, options.seed)
        for title, estimate, limit in zip(("FID", "MMD"), own, (fid, mmd), strict=True):
            excess = difference(title, found, reference, real, length, crops.patients, options.seed)
            metrics.append(
                Metric(
                    name=f"{name}: {title}",
                    estimate=estimate,
                    at_most=limit.high,
                    comparison=f"Euler-Maruyama + {excess.value:.3g} ({excess.low:.3g} – {excess.high:.3g})",
                )
            )
        if all(metric.is_reached for metric in metrics[-2:]):
            passed.add(name)
    description = (
        f"Extractor {extractor.name} ({extractor.sha256[:16]}); guidance weights {options.weight:g}. The "
        "goals are the upper ends of the intervals of Euler-Maruyama."
    )
    section = EvaluationSection(
        title="Quality per evaluation", description=description, metrics=tuple(metrics), seed=options.seed
    )
    print(section.as_markdown())
    if not passed & GOAL:
        sys.exit("Neither Heun nor the multistep sampler passes with 30 evaluations.")


def distances(
    found: Float[np.ndarray, "N F"],
    real: Float[np.ndarray, "N F"],
    length: float,
    patients: np.ndarray,
    seed: int,
) -> tuple[Estimate, Estimate]:
    """Return FID and MMD to the real crops."""
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
    """Return the distance to the real crops minus that of the reference, paired over crops."""
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
    parser.add_argument("-n", type=int, default=64, help="Crops of each sampler. Default: 64.")
    parser.add_argument(
        "--reference-steps", type=int, default=250, help="Steps of Euler-Maruyama. Default: 250."
    )
    parser.add_argument(
        "--weight", type=float, default=0.0, help="Guidance weight of both factors. Default: 0."
    )
    parser.add_argument("--extractor", type=Path, help="Weights of MedicalNet's ResNet-50. Default: pyramid.")
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Compare a generator that starts from the encoder of MeDUET with one that starts from scratch.

    python benchmarks/warm_start.py --model MODEL --data DATA
    python benchmarks/warm_start.py --steps 2 --every 1 --samples 2 --seeds 1 ...  # for a test of the script

The preset `tiny` is trained twice for each seed, with the trainer of `meduet-train generator`: once with the
blocks of the model's encoder, once from scratch. Everything else is equal: batches, noise, the weights that
the encoder does not have, and the learning rate with its cosine schedule, which ends with the last step. At
regular intervals the averaged weights are evaluated: their loss on held-out crops, and the FID of crops that
are generated from the pooled content and style of held-out crops, always from the same noise.

For each pair of runs, the target is the worse of the two last values, so both runs reach it. The result is
the ratio of the steps from scratch to the warm steps at which the target is first reached. A ratio below 1
means that the run from scratch was faster. Between two evaluations the values are interpolated; a target that
the first evaluation reaches counts as reached at that step. There is no goal, and the script does not fail.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from meduet_training.data.caches.factors import FactorEntry, cache_factors
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.sources.factors import FactorSource
from meduet_training.engine.callbacks import NullCallback
from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.engine.trainer import Trainer
from meduet_training.evaluation.metrics.distribution_distances import frechet_distance
from meduet_training.evaluation.metrics.volume_features import VolumeExtractor, volume_extractor
from meduet_training.evaluation.synthesis.generated_crops import ConditionalSampler, CropConditions, decoded
from meduet_training.evaluation.synthesis.real_crops import RealCrops, sample_crops
from meduet_training.runtime.fabric import make_fabric
from meduet_training.tasks.generator.presets import tiny
from meduet_training.tasks.generator.run import adapt_to_model, init_weights
from meduet_training.tasks.generator.validation import NUM_CROPS, GeneratorValidation
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.core.synthesis.objective import GenerationObjective
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.pipelines.requests import SynthesisRequest

Start = Literal["scratch", "warm"]
STARTS: tuple[Start, ...] = ("scratch", "warm")
SAMPLER_STEPS = 6  # Euler steps, without guidance
SEED = 2025  # seed of the held-out crops and of the first run; later runs add 1, 2, ...


@dataclass(kw_only=True, eq=False)
class Evaluations:
    """The evaluations of a run. Values of the same evaluation have the same index."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """The held-out data with which all runs are evaluated.

    Attributes:
        crops: real crops.
        features: features of the real crops.
        other_features: features of the same number of other crops of the same scans.
    """

    model: Model
    validation: GeneratorValidation
    crops: RealCrops
    extractor: VolumeExtractor
    features: Float[np.ndarray, "N F"]
    other_features: Float[np.ndarray, "N F"]

    def distance(self, objective: GenerationObjective) -> float:
        """Return the FID of generated crops to the real ones; both have the same number of crops."""
        request = SynthesisRequest(sampler="euler", steps=SAMPLER_STEPS, content_weight=0.0, style_weight=0.0)
        sampler = ConditionalSampler(
            model=replace(self.model, generator=objective.teacher), sampling=request, seed=SEED
        )
        latents = sampler.latents(
            CropConditions(noise=row, content=self.crops.content[row], style=self.crops.style[row])
            for row in range(len(self.crops))
        )
        return frechet_distance(self.extractor.features(decoded(self.model, latents)), self.features)


class EvaluationCallback(NullCallback):
    """A callback that evaluates a run at its validation steps."""

    def __init__(self, held_out: HeldOut, name: str) -> None:
        self.held_out, self.name, self.evaluations = held_out, name, Evaluations()

    def on_validation(self, step: int, objective: nn.Module) -> None:
        began, generation = time.perf_counter(), cast(GenerationObjective, objective)
        self.evaluations.steps.append(step)
        self.evaluations.losses.append(self.held_out.validation.loss(generation))
        self.evaluations.distances.append(self.held_out.distance(generation))
        print(
            f"{self.name}, step {step}: loss {self.evaluations.losses[-1]:.4f}, "
            f"FID {self.evaluations.distances[-1]:.4f}, evaluated in {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def gather_held_out(
    model: Model, options: argparse.Namespace, grid: tuple[int, int, int], extractor: VolumeExtractor
) -> HeldOut:
    """Return crops of the test split, with everything that an evaluation needs."""
    scans = [scan for scan in read_cohort(options.data) if scan.split == "test"]
    entries = cache_factors(model, scans, options.cache)
    crops = sample_crops(model, scans, entries, grid, 2 * options.samples, SEED)
    features = extractor.features(crops.voxels)
    return HeldOut(
        model=model,
        validation=GeneratorValidation(FactorSource(large_enough(entries, grid), grid, SEED), model),
        crops=crops.rows(np.arange(0, len(crops), 2)),
        extractor=extractor,
        features=features[::2],
        other_features=features[1::2],
    )


def large_enough(entries: Sequence[FactorEntry], grid: tuple[int, int, int]) -> list[FactorEntry]:
    """Return the entries that are at least as large as the grid of the generator."""
    return [entry for entry in entries if all(np.greater_equal(entry.grid, grid))]


def train_and_evaluate(
    training: TrainingConfig, model: Model, entries: Sequence[FactorEntry], held_out: HeldOut, every: int
) -> Evaluations:
    """Train a generator, and return the evaluations."""
    source = FactorSource(entries, cast(GeneratorConfig, training.network).grid, training.seed)
    callback = EvaluationCallback(held_out, f"seed {training.seed}, {training.start}")
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            make_fabric("cpu"),
            training,
            source,
            Path(folder),
            options=TrainerOptions(checkpoint_every=training.total_steps, validate_every=every),
            callback=callback,
            init_weights=partial(init_weights, training=training, model=model, source=source),
        ).fit()
    return callback.evaluations


def first_reached(steps: Sequence[int], values: Sequence[float], target: float) -> float:
    """Return the step at which the values first fall to the target, by linear interpolation."""
    last = next(k for k, value in enumerate(values) if value <= target)
    if last == 0:
        return float(steps[0])
    fraction = (values[last - 1] - target) / (values[last - 1] - values[last])
    return steps[last - 1] + fraction * (steps[last] - steps[last - 1])


def report(pairs: dict[int, dict[Start, Evaluations]], held_out: HeldOut, training: TrainingConfig) -> None:
    """Print the tables for docs/benchmarks.md."""
    floor = frechet_distance(held_out.other_features, held_out.features)
    extractor = held_out.extractor
    print(
        f"{training.total_steps} steps of batch {training.batch}, {len(pairs)} seeds. Loss on {NUM_CROPS} "
        f"held-out crops. FID of {len(held_out.crops)} generated crops ({SAMPLER_STEPS} Euler steps) to as "
        f"many real crops, extractor {extractor.name} ({extractor.sha256[:16]}). FID of other real crops of "
        f"the same scans: {floor:.3f}\n"
    )
    print("| steps | loss, scratch | loss, warm | FID, scratch | FID, warm |\n|---|---|---|---|---|")
    runs = list(pairs.values())
    for index, step in enumerate(runs[0]["warm"].steps):
        losses = (mean_and_std([run[start].losses[index] for run in runs], 3) for start in STARTS)
        distances = (mean_and_std([run[start].distances[index] for run in runs], 3) for start in STARTS)
        print(f"| {step} | {' | '.join((*losses, *distances))} |")
    print(
        "\n| metric | seed | from scratch, last | warm, last | target reached from scratch, step "
        "| warm, step | times fewer |\n|---|---|---|---|---|---|---|"
    )
    for metric, attribute in (("loss", "losses"), ("FID", "distances")):
        ratios = []
        for seed, run in pairs.items():
            values = {start: getattr(run[start], attribute) for start in STARTS}
            target = max(values[start][-1] for start in STARTS)
            scratch, warm = (first_reached(run[start].steps, values[start], target) for start in STARTS)
            ratios.append(scratch / warm)
            print(
                f"| {metric} | {seed} | {values['scratch'][-1]:.3f} | {values['warm'][-1]:.3f} | "
                f"{scratch:.0f} | {warm:.0f} | {ratios[-1]:.2f} |"
            )
        print(f"| {metric} | all | | | | | {mean_and_std(ratios, 2)} |")


def mean_and_std(values: Sequence[float], digits: int) -> str:
    """Return the mean and, for several values, the standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main() -> None:
    options = parsed()
    model = load_model(options.model, "cpu")
    training = replace(
        tiny(), batch=options.batch, objective=replace(tiny().objective, total_steps=options.steps)
    )
    grid = cast(GeneratorConfig, training.network).grid
    held_out = gather_held_out(model, options, grid, volume_extractor(options.extractor, torch.device("cpu")))
    entries = large_enough(cache_factors(model, trainable(read_cohort(options.data)), options.cache), grid)
    pairs: dict[int, dict[Start, Evaluations]] = {}
    for seed in range(SEED, SEED + options.seeds):
        pairs[seed] = {}
        for start in STARTS:
            run_config = adapt_to_model(
                replace(training, seed=seed), model.meduet.config, model.sha256, start
            )
            pairs[seed][start] = train_and_evaluate(run_config, model, entries, held_out, options.every)
    report(pairs, held_out, training)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("src/napari_meduet/models/demo"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("caches/factors"))
    parser.add_argument("--steps", type=int, default=120, help="Training steps. Default: 120.")
    parser.add_argument("--batch", type=int, default=8, help="Rows of a batch. Default: 8.")
    parser.add_argument("--every", type=int, default=20, help="Steps between two evaluations. Default: 20.")
    parser.add_argument("--seeds", type=int, default=3, help="Number of seeds. Default: 3.")
    parser.add_argument("--samples", type=int, default=24, help="Crops of a FID. Default: 24.")
    parser.add_argument("--extractor", type=Path, help="Weights of MedicalNet's ResNet-50. Default: pyramid.")
    return parser.parse_args()


if __name__ == "__main__":
    main()

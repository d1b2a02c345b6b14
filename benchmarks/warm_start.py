"""In how many fewer steps does a generator that starts from the encoder reach what one from scratch does?

    python benchmarks/warm_start.py --model MODEL --data DATA
    python benchmarks/warm_start.py --steps 2 --every 1 --samples 2 --seeds 1 ...  # to see that it runs

The preset `tiny` is trained twice from each seed, by the engine of `meduet-train generator`: once with the
blocks of the model's encoder, once from scratch. All else is equal: batches, their noise, the weights that
no encoder has, the rate and its cosine, which ends with the last step here. Every so many steps the average
of the weights is looked at: its loss on held-out crops, and the FID of crops generated from the pooled
content and style of held-out ones, always from the same noise, to these.

Both runs of a pair reach the worse of their two last values; the figure is in how many times fewer steps the
warm one does so first. Where the warm run ends better this is the last value from scratch. Between two looks
values are taken to fall evenly; what the first look shows counts as reached there. A ratio below 1 says that
scratch was faster. There is no goal, and nothing fails.
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
SAMPLER_STEPS = 6  # of Euler, without guidance
SEED = 2025  # of what is held out, the same for all runs; those of the runs count on from it


@dataclass(kw_only=True, eq=False)
class Looks:
    """What was seen of a run; values of one look have one index."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """What every run is measured on.

    Attributes:
        features: of the real crops.
        other_features: of as many other crops of the same scans.
    """

    model: Model
    validation: GeneratorValidation
    crops: RealCrops
    extractor: VolumeExtractor
    features: Float[np.ndarray, "N F"]
    other_features: Float[np.ndarray, "N F"]

    def distance(self, objective: GenerationObjective) -> float:
        """FID of as many generated crops to the real ones."""
        request = SynthesisRequest(sampler="euler", steps=SAMPLER_STEPS, content_weight=0.0, style_weight=0.0)
        maker = ConditionalSampler(
            model=replace(self.model, generator=objective.teacher), sampling=request, seed=SEED
        )
        latents = maker.latents(
            CropConditions(noise=row, content=self.crops.content[row], style=self.crops.style[row])
            for row in range(len(self.crops))
        )
        return frechet_distance(self.extractor.features(decoded(self.model, latents)), self.features)


class Looker(NullCallback):
    """Measures a run every so many steps."""

    def __init__(self, held_out: HeldOut, name: str) -> None:
        self.held_out, self.name, self.looks = held_out, name, Looks()

    def on_validation(self, step: int, objective: nn.Module) -> None:
        began, generation = time.perf_counter(), cast(GenerationObjective, objective)
        self.looks.steps.append(step)
        self.looks.losses.append(self.held_out.validation.loss(generation))
        self.looks.distances.append(self.held_out.distance(generation))
        print(
            f"{self.name}, step {step}: loss {self.looks.losses[-1]:.4f}, "
            f"FID {self.looks.distances[-1]:.4f}, looked for {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def gather_held_out(
    model: Model, options: argparse.Namespace, grid: tuple[int, int, int], extractor: VolumeExtractor
) -> HeldOut:
    """Crops of the test split."""
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
    return [entry for entry in entries if all(np.greater_equal(entry.grid, grid))]


def looked_at(
    training: TrainingConfig, model: Model, entries: Sequence[FactorEntry], held_out: HeldOut, every: int
) -> Looks:
    """Train, and say what was seen."""
    source = FactorSource(entries, cast(GeneratorConfig, training.network).grid, training.seed)
    looker = Looker(held_out, f"seed {training.seed}, {training.start}")
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            make_fabric("cpu"),
            training,
            source,
            Path(folder),
            options=TrainerOptions(checkpoint_every=training.total_steps, validate_every=every),
            callback=looker,
            init_weights=partial(init_weights, training=training, model=model, source=source),
        ).fit()
    return looker.looks


def first_reached(steps: Sequence[int], values: Sequence[float], target: float) -> float:
    """The step at which falling values first reach a target that they do reach."""
    last = next(k for k, value in enumerate(values) if value <= target)
    if last == 0:
        return float(steps[0])
    share = (values[last - 1] - target) / (values[last - 1] - values[last])
    return steps[last - 1] + share * (steps[last] - steps[last - 1])


def report(pairs: dict[int, dict[Start, Looks]], held_out: HeldOut, training: TrainingConfig) -> None:
    """Tables for docs/benchmarks.md."""
    floor = frechet_distance(held_out.other_features, held_out.features)
    print(
        f"{training.total_steps} steps of {training.batch}, {len(pairs)} seeds; loss on {NUM_CROPS} held-out "
        f"crops; FID of {len(held_out.crops)} crops by {SAMPLER_STEPS} Euler steps to as many real ones, "
        f"extractor {held_out.extractor.name} ({held_out.extractor.sha256[:16]}); other real crops of the "
        f"same scans: {floor:.3f}\n"
    )
    print("| steps | loss, scratch | loss, warm | FID, scratch | FID, warm |\n|---|---|---|---|---|")
    runs = list(pairs.values())
    for look, step in enumerate(runs[0]["warm"].steps):
        losses = (spread([run[start].losses[look] for run in runs], 3) for start in STARTS)
        distances = (spread([run[start].distances[look] for run in runs], 3) for start in STARTS)
        print(f"| {step} | {' | '.join((*losses, *distances))} |")
    print(
        "\n| measure | seed | from scratch, last | warm, last | reached from scratch, step | warm | "
        "times fewer |\n|---|---|---|---|---|---|---|"
    )
    for measure, attribute in (("loss", "losses"), ("FID", "distances")):
        ratios = []
        for seed, run in pairs.items():
            values = {start: getattr(run[start], attribute) for start in STARTS}
            target = max(values[start][-1] for start in STARTS)
            scratch, warm = (first_reached(run[start].steps, values[start], target) for start in STARTS)
            ratios.append(scratch / warm)
            print(
                f"| {measure} | {seed} | {values['scratch'][-1]:.3f} | {values['warm'][-1]:.3f} | "
                f"{scratch:.0f} | {warm:.0f} | {ratios[-1]:.2f} |"
            )
        print(f"| {measure} | all | | | | | {spread(ratios, 2)} |")


def spread(values: Sequence[float], digits: int) -> str:
    """The mean and, of several, the standard deviation."""
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
    pairs: dict[int, dict[Start, Looks]] = {}
    for seed in range(SEED, SEED + options.seeds):
        pairs[seed] = {}
        for start in STARTS:
            whole = adapt_to_model(replace(training, seed=seed), model.meduet.config, model.sha256, start)
            pairs[seed][start] = looked_at(whole, model, entries, held_out, options.every)
    report(pairs, held_out, training)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("src/napari_meduet/models/demo"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("caches/factors"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--every", type=int, default=20, help="steps between two looks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=24, help="crops of a FID")
    parser.add_argument("--extractor", type=Path, help="MedicalNet's ResNet-50")
    return parser.parse_args()


if __name__ == "__main__":
    main()

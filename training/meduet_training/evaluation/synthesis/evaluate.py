"""`meduet-evaluate synthesis`: all metrics of a generator (specification, section 14).

The files beside this one compute the sections. commands/evaluate.py writes the results.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from meduet_training.evaluation.metrics.volume_features import volume_extractor
from meduet_training.evaluation.sections import EvaluationSection
from meduet_training.evaluation.synthesis.controllability import style_section, surface_section
from meduet_training.evaluation.synthesis.counterfactuals import (
    Sweep,
    counterfactual_section,
    generate_sweeps,
)
from meduet_training.evaluation.synthesis.evaluation_data import EvaluationData, build_evaluation_data
from meduet_training.evaluation.synthesis.generated_crops import ConditionalSampler
from meduet_training.evaluation.synthesis.memorisation import memory_section
from meduet_training.evaluation.synthesis.quality import quality_section
from napari_meduet.models.card import GENERATOR_FILE
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.requests import SynthesisRequest

NAME = "synthesis"  # of the output files, of the section in a document, and of the metrics on the card


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """Options of the evaluation of a generator.

    Attributes:
        model: folder of a model with a generator.
        data: a manifest, or a folder with an index.json. Scans of the test split are references; samples
            could be copies of scans of the train split.
        cache: folder of the factors of the scans; missing factors are computed.
        count: number of held-out crops, and of generated crops.
        sampling: sampler, steps and guidance weights.
        extractor: weights of MedicalNet. None: features of the pyramid.
    """

    model: Path
    data: Path
    cache: Path
    count: int
    seed: int
    sampling: SynthesisRequest
    extractor: Path | None
    device: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisEvaluation:
    """Metrics of a generator, with the crops and sweeps for pictures.

    Attributes:
        settings: digests, sampler and extractor that describe the metrics.
    """

    sections: dict[str, EvaluationSection]
    settings: dict[str, Any]
    data: EvaluationData
    sweeps: list[Sweep]

    def as_data(self) -> dict[str, Any]:
        """Return everything as JSON types, with the tables."""
        return self.settings | {
            "sections": {
                name: section.as_data()
                | {
                    "title": section.title,
                    "description": section.description,
                    "tables": [asdict(table) for table in section.tables],
                }
                for name, section in self.sections.items()
            }
        }

    def as_card_data(self) -> dict[str, Any]:
        """Return the metrics for the model card, without tables."""
        return self.settings | {name: section.as_data() for name, section in self.sections.items()}

    def as_markdown(self) -> str:
        """Return settings, metrics and tables as Markdown."""
        settings = self.settings
        sampling = settings["sampling"]
        head = (
            f"{settings['num_crops']} crops, seed {settings['seed']}; sampler {sampling['sampler']}, "
            f"{sampling['steps']} steps, w_c {sampling['content_weight']:g}, w_s "
            f"{sampling['style_weight']:g}. Extractor {settings['extractor']['name']} "
            f"({settings['extractor']['sha256'][:16]}); model {settings['model_sha256'][:16]}, generator "
            f"{settings['generator_sha256'][:16]}."
        )
        return "\n".join([head + "\n", *(section.as_markdown() for section in self.sections.values())])


def evaluate_synthesis(
    options: SynthesisOptions, report: Callable[[str], None], on_section: Callable[[str], None]
) -> SynthesisEvaluation:
    """Measure all sections.

    Args:
        report: called with lines of progress.
        on_section: called with the Markdown text of each section as soon as it is measured.

    Raises:
        InputError: the model, the cohort or the extractor cannot be used.
    """
    model = load_model(options.model, options.device)
    sampling = replace(options.sampling, steps=options.sampling.num_steps)
    sampler = ConditionalSampler(
        model=model, sampling=sampling, seed=options.seed, on_crop=_crop_counter(report)
    )
    extractor = volume_extractor(options.extractor, model.device)
    settings = {
        "num_crops": options.count,
        "seed": options.seed,
        "extractor": {"name": extractor.name, "sha256": extractor.sha256},
        "model": model.card.name,
        "model_sha256": model.sha256,
        "generator_sha256": model.card.files[GENERATOR_FILE].sha256,
        "sampling": {
            "sampler": sampling.sampler,
            "steps": sampling.num_steps,
            "guidance": sampling.guidance,
            "content_weight": sampling.content_weight,
            "style_weight": sampling.style_weight,
        },
    }
    start = time.monotonic()
    data = build_evaluation_data(
        sampler, extractor, options.data, options.cache, options.count, options.seed, report
    )
    sweeps: list[Sweep] = []
    sections: dict[str, EvaluationSection] = {}
    for name, section in _sections(data, sweeps):
        sections[name] = section
        on_section(section.as_markdown())
        report(f"{name}: finished after {time.monotonic() - start:.0f} s")
    return SynthesisEvaluation(sections=sections, settings=settings, data=data, sweeps=sweeps)


def _sections(data: EvaluationData, sweeps: list[Sweep]) -> Iterator[tuple[str, EvaluationSection]]:
    """Yield the sections one after another, and append the sweeps to a list for pictures."""
    yield "quality", quality_section(data)
    yield "memory", memory_section(data)
    yield "style", style_section(data)
    yield "surface", surface_section(data)
    sweeps += generate_sweeps(data)
    yield "counterfactuals", counterfactual_section(data, sweeps)


def _crop_counter(report: Callable[[str], None]) -> Callable[[int], None]:
    """Return a callback that reports every 16 generated crops."""
    total = 0

    def on_crop(count: int) -> None:
        nonlocal total
        total += count
        if total % 16 == 0:
            report(f"{total} crops generated")

    return on_crop

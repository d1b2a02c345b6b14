"""`meduet-evaluate synthesis`: every question that a generator is asked, into one folder (specification, section 14)."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from meduet_training.evaluation.metrics.volume_features import volume_extractor
from meduet_training.evaluation.sections import EvaluationSection, write_section
from meduet_training.evaluation.synthesis.controllability import style_part, surface_part
from meduet_training.evaluation.synthesis.counterfactuals import Sweep, counterfactual_part, sweeps
from meduet_training.evaluation.synthesis.generated_crops import CropMaker
from meduet_training.evaluation.synthesis.material import Material, gather_material
from meduet_training.evaluation.synthesis.memorisation import memory_part
from meduet_training.evaluation.synthesis.quality import quality_part
from napari_meduet.models.card import GENERATOR_FILE, read_card
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_metrics
from napari_meduet.pipelines.requests import SynthesisRequest
from napari_meduet.volumes.files import write_atomically

SYNTHESIS_JSON, SYNTHESIS_MARKDOWN = "synthesis.json", "synthesis.md"
SECTION = "synthesis"  # of a document, and on the card


@dataclass(frozen=True, kw_only=True)
class SynthesisQuestion:
    """What to evaluate, and how.

    Attributes:
        data: a manifest, or a folder with an index.json; its test split judges, its train split is what
            samples could be copies of.
        cache: folder of the scans' factors, filled where they are missing.
        count: held-out crops, and generated ones.
        sampling: sampler, steps and weights.
        extractor: MedicalNet's weights; None: the pyramid.
        document: a page with markers for the tables.
        on_card: whether the figures go on the model's card.
    """

    model: Path
    data: Path
    cache: Path
    count: int
    seed: int
    sampling: SynthesisRequest
    extractor: Path | None
    device: str
    document: Path | None
    on_card: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisEvaluation:
    """What was found.

    Attributes:
        settings: all that a figure must not be quoted without.
    """

    parts: dict[str, EvaluationSection]
    settings: dict[str, Any]
    material: Material
    swept: list[Sweep]

    def as_data(self) -> dict[str, Any]:
        """JSON types, tables included."""
        return self.settings | {
            "parts": {
                name: part.as_data()
                | {"title": part.title, "how": part.how, "tables": [asdict(each) for each in part.tables]}
                for name, part in self.parts.items()
            }
        }

    def as_markdown(self) -> str:
        words = self.settings
        sampling = words["sampling"]
        head = (
            f"{words['num_crops']} crops, seed {words['seed']}; sampler {sampling['sampler']}, "
            f"{sampling['steps']} steps, w_c {sampling['content_weight']:g}, w_s "
            f"{sampling['style_weight']:g}. Extractor {words['extractor']['name']} "
            f"({words['extractor']['sha256'][:16]}); model {words['model_sha256'][:16]}, generator "
            f"{words['generator_sha256'][:16]}."
        )
        return "\n".join([head + "\n", *(part.as_markdown() for part in self.parts.values())])


def evaluate_synthesis(
    question: SynthesisQuestion, say: Callable[[str], None], show: Callable[[str], None]
) -> SynthesisEvaluation:
    """Answer every part in turn; each is shown as soon as it is known.

    Raises:
        InputError: model, cohort or extractor cannot be used.
    """
    model = load_model(question.model, question.device)
    sampling = replace(question.sampling, steps=question.sampling.num_steps)
    maker = CropMaker(model=model, sampling=sampling, seed=question.seed, tell=_counter(say))
    extractor = volume_extractor(question.extractor, model.device)
    settings = {
        "num_crops": question.count,
        "seed": question.seed,
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
    began = time.monotonic()
    material = gather_material(
        maker, extractor, question.data, question.cache, question.count, question.seed, say
    )
    swept: list[Sweep] = []
    parts: dict[str, EvaluationSection] = {}
    for name, part in _answered(material, swept):
        parts[name] = part
        show(part.as_markdown())
        say(f"{name}: done after {time.monotonic() - began:.0f} s")
    return SynthesisEvaluation(parts=parts, settings=settings, material=material, swept=swept)


def write_evaluation(found: SynthesisEvaluation, question: SynthesisQuestion, folder: Path) -> None:
    """Figures as JSON and as a page of tables; into a document and onto the card where that is wanted."""
    for name, text in (
        (SYNTHESIS_JSON, json.dumps(found.as_data(), indent=2, allow_nan=False) + "\n"),
        (SYNTHESIS_MARKDOWN, found.as_markdown()),
    ):
        with write_atomically(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, "utf-8")
    if question.document is not None:
        write_section(question.document, SECTION, found.as_markdown())
    if question.on_card:
        data = found.settings | {name: part.as_data() for name, part in found.parts.items()}
        save_metrics(question.model, read_card(question.model).metrics | {SECTION: data})


def _answered(material: Material, swept: list[Sweep]) -> Iterator[tuple[str, EvaluationSection]]:
    """The parts, the quickest to be read first; sweeps are kept for the pictures."""
    yield "quality", quality_part(material)
    yield "memory", memory_part(material)
    yield "style", style_part(material)
    yield "surface", surface_part(material)
    swept += sweeps(material)
    yield "counterfactuals", counterfactual_part(material, swept)


def _counter(say: Callable[[str], None]) -> Callable[[int], None]:
    made = 0

    def tell(count: int) -> None:
        nonlocal made
        made += count
        if made % 16 == 0:
            say(f"{made} crops generated")

    return tell

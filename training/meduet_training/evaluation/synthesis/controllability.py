"""Controllability of a generator: the domain of its samples by probes, and their anatomy by Dice.

Both are measured with and without the condition, and over a grid of guidance weights: the consistency surface
R_D and R_C (specification, sections 13 and 14).
"""

from typing import cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from meduet_training.evaluation.metrics.anatomy_overlap import anatomy_overlap
from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate
from meduet_training.evaluation.metrics.volume_features import PYRAMID
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table
from meduet_training.evaluation.synthesis.evaluation_data import EvaluationData
from meduet_training.evaluation.synthesis.generated_crops import decoded, predict_with_model
from meduet_training.evaluation.synthesis.target_styles import TargetStyles
from napari_meduet.models.card import Modality
from napari_meduet.models.model import scan_profile
from napari_meduet.volumes.intensity import CT_FULL

WEIGHTS = (0.0, 1.0, 3.0)  # guidance weights of content and style on the surface; 3 is the paper's
SURFACE_STEP = 8  # every 8th target style is generated for each pair of weights
GOAL_STYLE, GOAL_DICE = 0.60, 0.85
PROBE = (
    "The probe is a logistic regression on hand-made image features ({probe}). It is fitted to {number} "
    "real held-out crops that were encoded and decoded by the tokenizer, and is independent of the model. "
    "The model's own style classifier reads the generated latent. It knows the {own} domains of its "
    "training, which include simulated scanners."
)
STYLE_DESCRIPTION = (
    "Held-out crops are generated in the style of a held-out scan of another domain (any CT for CT, the "
    "same body region for MR; s0 of the whole scan): with their spatial content, without content, and with "
    "the same noise but without a style. A hit is a sample whose predicted domain is the target domain. "
    "Intervals are over the patients "
    "of the content. " + PROBE
)
SURFACE_DESCRIPTION = (
    "The same target styles, with spatial content. R_D is the mean Dice of the masks that are large enough "
    "in the content scan (body > -300, lung < -400 inside the body, bone > 250 HU; the foreground for MR; "
    "smoothed by 1.5 mm). R_C is the fraction of samples with the target domain. Each pair of weights has "
    "{count} samples. " + PROBE
)
MASKS = ("body", "lung", "bone")


def style_section(data: EvaluationData) -> EvaluationSection:
    """Measure hit rates with the style, without the style, and of real crops."""
    target_styles, crops = data.target_styles, data.crops
    target, own = crops.domains[target_styles.style], crops.domains[target_styles.content]
    few = target_styles.first(max(len(target_styles) // 2, 1))
    style_only = data.sampler.latents(data.conditions(few, with_content=False))
    content_only = data.sampler.latents(data.conditions(few, with_style=False))
    rows = (
        ("style of another domain, same anatomy", target_styles, data.in_target_style, target, GOAL_STYLE),
        ("style alone, no content", few, style_only, target[: len(few)], GOAL_STYLE),
        ("no style, same anatomy and noise", few, content_only, target[: len(few)], None),
        ("no style: domain of the content", few, content_only, own[: len(few)], None),
    )
    metrics: list[Metric] = []
    for name, styles, latents, expected, goal in rows:
        metrics += _hits(data, name, styles, latents, expected, goal)
    all_crops = TargetStyles(content=np.arange(len(crops)), style=np.arange(len(crops)))
    metrics += _hits(
        data, "real held-out crops, for comparison", all_crops, crops.latent, crops.domains, None
    )
    return EvaluationSection(
        title="Target styles",
        description=STYLE_DESCRIPTION.format(**_probe_values(data)),
        metrics=tuple(metrics),
        tables=(_by_domain(data, target),),
        seed=data.seed,
    )


def surface_section(data: EvaluationData) -> EvaluationSection:
    """Measure Dice at the given guidance weights, and both rates over a grid of weights."""
    crops, target_styles = data.crops, data.target_styles
    metrics = _dice_metrics(data)
    few = target_styles.first(max(len(target_styles) // SURFACE_STEP, 4))
    patients = crops.patients[few.content].tolist()
    target = crops.domains[few.style]
    rows: list[tuple[str | float, ...]] = []
    for content_weight in WEIGHTS:
        for style_weight in WEIGHTS:
            sampler = data.sampler.with_weights(content_weight, style_weight)
            latents = sampler.latents(data.conditions(few))
            volumes = decoded(data.model, latents)
            dices = [np.mean(list(each.values())) for each in content_dice(data, few, volumes)]
            hits = data.probe.predict(PYRAMID.features(volumes)) == target
            known = np.isin(target, data.model.card.domains)
            own = (predict_with_model(data.model, latents) == target)[known]
            rates = [
                (dices, patients),
                (hits, patients),
                (own, [patient for patient, is_known in zip(patients, known, strict=True) if is_known]),
            ]
            cells = [
                _cell(mean_estimate(values, groups, data.seed)) if len(values) else "–"
                for values, groups in rates
            ]
            rows.append((content_weight, style_weight, *cells, len(few)))
    columns = ("w_c", "w_s", "R_D", "R_C, probe", "R_C, classifier of the model", "n")
    return EvaluationSection(
        title="Consistency over the guidance weights",
        description=SURFACE_DESCRIPTION.format(**_probe_values(data), count=len(few)),
        metrics=tuple(metrics),
        tables=(Table(title="Surface, with 95 % intervals over patients", columns=columns, rows=rows),),
        seed=data.seed,
    )


def content_dice(
    data: EvaluationData, target_styles: TargetStyles, volumes: Float[Tensor, "N X Y Z"]
) -> list[dict[str, float]]:
    """Return the Dice between each mask of the content crop and of the generated crop."""
    crops, card = data.crops, data.model.card
    ct_profile = scan_profile(card.profiles["CT"], ()) if "CT" in card.profiles else CT_FULL
    return [
        anatomy_overlap(crops.voxels[row], volume, cast(Modality, str(crops.modalities[row])), ct_profile)
        for row, volume in zip(target_styles.content, volumes, strict=True)
    ]


def _dice_metrics(data: EvaluationData) -> list[Metric]:
    """Return the Dice of samples in target styles by modality and mask, with that of the tokenizer."""
    target_styles, crops = data.target_styles, data.crops
    generated = content_dice(data, target_styles, data.in_target_style_volumes)
    reconstructed = content_dice(data, target_styles, data.reconstructed[target_styles.content])
    metrics = []
    for modality in ("CT", "MR"):
        for name in MASKS:
            rows = [
                k
                for k, dices in enumerate(generated)
                if name in dices and crops.modalities[target_styles.content[k]] == modality
            ]
            if rows:
                patients = crops.patients[target_styles.content[rows]].tolist()
                estimate = mean_estimate([generated[k][name] for k in rows], patients, data.seed)
                tokenizer = float(np.mean([reconstructed[k][name] for k in rows]))
                metrics.append(
                    Metric(
                        name=f"{modality}, same anatomy in another style: Dice of {name}",
                        estimate=estimate,
                        at_least=GOAL_DICE,
                        comparison=f"reconstruction by the tokenizer {tokenizer:.3f}",
                    )
                )
    return metrics


def _hits(
    data: EvaluationData,
    name: str,
    target_styles: TargetStyles,
    latents: Float[Tensor, "N C x y z"],
    expected: np.ndarray,
    goal: float | None,
) -> list[Metric]:
    """Return the fraction of samples with the expected domain, by the probe and by the model."""
    patients = data.crops.patients[target_styles.content]
    probe = data.probe
    hits = probe.predict(PYRAMID.features(decoded(data.model, latents))) == expected
    prior = float(np.mean([probe.fractions.get(str(domain), 0.0) for domain in expected]))
    metrics = [
        Metric(
            name=f"{name}: probe",
            estimate=mean_estimate(hits, patients.tolist(), data.seed),
            at_least=goal,
            comparison=f"{len(probe.fractions)} domains; chance {probe.chance:.3f}, prior {prior:.3f}",
        )
    ]
    known = np.isin(expected, data.model.card.domains)
    if known.any():
        own = (predict_with_model(data.model, latents) == expected)[known]
        number = len(data.model.card.domains)
        metrics.append(
            Metric(
                name=f"{name}: classifier of the model",
                estimate=mean_estimate(own, patients[known].tolist(), data.seed),
                comparison=f"{number} domains; chance {1 / number:.3f}; only known domains",
            )
        )
    return metrics


def _by_domain(data: EvaluationData, target: np.ndarray) -> Table:
    """Return the hit rate of the probe for each target domain, with spatial content."""
    hits = data.probe.predict(PYRAMID.features(data.in_target_style_volumes)) == target
    rows = [
        (str(name), float(hits[target == name].mean()), int((target == name).sum()))
        for name in np.unique(target)
    ]
    return Table(title="Same anatomy, by target domain", columns=("domain", "hits", "n"), rows=rows)


def _probe_values(data: EvaluationData) -> dict[str, str | int]:
    return {
        "probe": PYRAMID.name,
        "number": len(data.others),
        "own": len(data.model.card.domains),
    }


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} – {estimate.high:.2f})"

"""Whether a generator does what it is asked: style by probes, anatomy by Dice, and both over the two weights.

Controllability with and without the condition, and the consistency surface R_D and R_C (specification, section 13 and 14).
"""

from typing import cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from meduet_training.evaluation.metrics.anatomy_overlap import anatomy_overlap
from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate
from meduet_training.evaluation.metrics.volume_features import PYRAMID
from meduet_training.evaluation.sections import Figure, Part, Table
from meduet_training.evaluation.synthesis.generated_crops import decoded, recognised_by_model
from meduet_training.evaluation.synthesis.material import Material
from meduet_training.evaluation.synthesis.target_styles import TargetStyles
from napari_meduet.models.card import Modality

WEIGHTS = (0.0, 1.0, 3.0)  # of content and of style on the surface; 3 is the paper's
SURFACE_SHARE = 8  # one in so many wishes is asked for at each pair of weights
GOAL_STYLE, GOAL_DICE = 0.60, 0.85
PROBE = (
    "The probe is a logistic regression on hand-made features of images ({probe}), learned from {number} "
    "real held-out crops seen through the tokenizer; it knows nothing of the model. The model's own style "
    "classifier reads the generated latent and knows the {own} domains of its training, simulated scanners "
    "among them."
)
HOW_STYLE = (
    "Held-out crops asked for in the style of a held-out scan of another domain (CT in any of CT, MR within "
    "its body region; s0 of the whole scan), with the same anatomy and with none given; and the same noise "
    "without a style. A hit is the domain that was asked for. Intervals are over the patients whose content "
    "was asked for. " + PROBE
)
HOW_SURFACE = (
    "The same wishes with the content of every place. R_D is the mean Dice of the masks that the content "
    "scan shows (body > -300, lung < -400 inside the body, bone > 250 HU; the foreground of MR; smoothed "
    "by 1.5 mm), R_C the share of samples whose domain is the one asked for; {wishes} wishes for each "
    "pair of weights. " + PROBE
)
MASKS = ("body", "lung", "bone")


def style_part(material: Material) -> Part:
    """Hit rates with the style, without it, and of real crops."""
    wishes, crops = material.wishes, material.crops
    asked, own = crops.domains[wishes.style], crops.domains[wishes.content]
    few = wishes.first(max(len(wishes) // 2, 1))
    alone = material.maker.latents(material.wanted(few, with_content=False))
    without = material.maker.latents(material.wanted(few, with_style=False))
    rows = (
        ("style of another domain, same anatomy", wishes, material.restyled, asked, GOAL_STYLE),
        ("style alone, no content", few, alone, asked[: len(few)], GOAL_STYLE),
        ("no style, same anatomy and noise", few, without, asked[: len(few)], None),
        ("no style: the content's own domain", few, without, own[: len(few)], None),
    )
    figures: list[Figure] = []
    for what, of, latents, wanted, goal in rows:
        figures += _hits(material, what, of, latents, wanted, goal)
    every = TargetStyles(content=np.arange(len(crops)), style=np.arange(len(crops)))
    figures += _hits(
        material, "real held-out crops, for comparison", every, crops.latent, crops.domains, None
    )
    return Part(
        title="Style on request",
        how=HOW_STYLE.format(**_probe_words(material)),
        figures=tuple(figures),
        tables=(_by_domain(material, asked),),
        seed=material.seed,
    )


def surface_part(material: Material) -> Part:
    """Dice at the weights that were asked for, and both rates over a grid of weights."""
    crops, wishes = material.crops, material.wishes
    figures = _dice_figures(material)
    few = wishes.first(max(len(wishes) // SURFACE_SHARE, 4))
    patients = crops.patients[few.content].tolist()
    asked = crops.domains[few.style]
    rows: list[tuple[str | float, ...]] = []
    for content_weight in WEIGHTS:
        for style_weight in WEIGHTS:
            maker = material.maker.with_weights(content_weight, style_weight)
            latents = maker.latents(material.wanted(few))
            volumes = decoded(material.model, latents)
            dices = [np.mean(list(each.values())) for each in overlaps(material, few, volumes)]
            hits = material.probe.recognised(PYRAMID.features(volumes)) == asked
            known = np.isin(asked, material.model.card.domains)
            own = (recognised_by_model(material.model, latents) == asked)[known]
            rates = [
                (dices, patients),
                (hits, patients),
                (own, [patient for patient, is_known in zip(patients, known, strict=True) if is_known]),
            ]
            cells = [
                _cell(mean_estimate(values, whose, material.seed)) if len(values) else "–"
                for values, whose in rates
            ]
            rows.append((content_weight, style_weight, *cells, len(few)))
    columns = ("w_c", "w_s", "R_D", "R_C, probe", "R_C, the model's own", "n")
    return Part(
        title="Consistency over the two weights of guidance",
        how=HOW_SURFACE.format(**_probe_words(material), wishes=len(few)),
        figures=tuple(figures),
        tables=(Table(title="Surface, with 95 % intervals over patients", columns=columns, rows=rows),),
        seed=material.seed,
    )


def overlaps(
    material: Material, wishes: TargetStyles, volumes: Float[Tensor, "N X Y Z"]
) -> list[dict[str, float]]:
    """Dice of each mask of the content, for each wish."""
    crops = material.crops
    return [
        anatomy_overlap(crops.units[row], volume, cast(Modality, str(crops.modalities[row])))
        for row, volume in zip(wishes.content, volumes, strict=True)
    ]


def _dice_figures(material: Material) -> list[Figure]:
    """Same anatomy in another style, by modality and mask, with the tokenizer's own beside."""
    wishes, crops = material.wishes, material.crops
    found = overlaps(material, wishes, material.restyled_volumes)
    floor = overlaps(material, wishes, material.reconstructed[wishes.content])
    figures = []
    for modality in ("CT", "MR"):
        for name in MASKS:
            rows = [
                k
                for k, dices in enumerate(found)
                if name in dices and crops.modalities[wishes.content[k]] == modality
            ]
            if rows:
                patients = crops.patients[wishes.content[rows]].tolist()
                estimate = mean_estimate([found[k][name] for k in rows], patients, material.seed)
                tokenizer = float(np.mean([floor[k][name] for k in rows]))
                figures.append(
                    Figure(
                        what=f"{modality}, same anatomy in another style: Dice of {name}",
                        estimate=estimate,
                        at_least=GOAL_DICE,
                        beside=f"the tokenizer alone {tokenizer:.3f}",
                    )
                )
    return figures


def _hits(
    material: Material,
    what: str,
    wishes: TargetStyles,
    latents: Float[Tensor, "N C x y z"],
    wanted: np.ndarray,
    goal: float | None,
) -> list[Figure]:
    """Share of samples recognised as what was wanted, by the probe and by the model."""
    patients = material.crops.patients[wishes.content]
    probe = material.probe
    hits = probe.recognised(PYRAMID.features(decoded(material.model, latents))) == wanted
    prior = float(np.mean([probe.shares.get(str(domain), 0.0) for domain in wanted]))
    figures = [
        Figure(
            what=f"{what}: probe",
            estimate=mean_estimate(hits, patients.tolist(), material.seed),
            at_least=goal,
            beside=f"{len(probe.shares)} domains; chance {probe.chance:.3f}, prior {prior:.3f}",
        )
    ]
    known = np.isin(wanted, material.model.card.domains)
    if known.any():
        own = (recognised_by_model(material.model, latents) == wanted)[known]
        number = len(material.model.card.domains)
        figures.append(
            Figure(
                what=f"{what}: the model's own classifier",
                estimate=mean_estimate(own, patients[known].tolist(), material.seed),
                beside=f"{number} domains; chance {1 / number:.3f}; only domains it knows",
            )
        )
    return figures


def _by_domain(material: Material, asked: np.ndarray) -> Table:
    """Hits of the probe for each domain that was asked for, same anatomy."""
    hits = material.probe.recognised(PYRAMID.features(material.restyled_volumes)) == asked
    rows = [
        (str(name), float(hits[asked == name].mean()), int((asked == name).sum()))
        for name in np.unique(asked)
    ]
    return Table(
        title="Same anatomy, by the domain that was asked for", columns=("domain", "hits", "n"), rows=rows
    )


def _probe_words(material: Material) -> dict[str, str | int]:
    return {
        "probe": PYRAMID.name,
        "number": len(material.others),
        "own": len(material.model.card.domains),
    }


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} – {estimate.high:.2f})"

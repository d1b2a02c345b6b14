"""Which style each held-out crop is asked for, and the probe that says whether it came (specification, section 13).

The probe is a logistic regression on features of images that know nothing of the model, learned from real
crops. A generator can only write what its tokenizer can, so the real crops too are seen through the
tokenizer: a probe of raw voxels would tell tokenizers from scanners.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from meduet_training.evaluation.metrics.probes import MAX_ITERATIONS
from meduet_training.evaluation.metrics.pyramid_features import BINS, PARTS
from meduet_training.evaluation.synthesis.real_crops import RealCrops
from napari_meduet.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class DomainProbe:
    """Tells domains by how a volume looks, not by what lies where in it.

    Attributes:
        shares: of each domain among the crops it learned from; their prior.
    """

    pipeline: Pipeline
    shares: dict[str, float]

    @classmethod
    def fitted(cls, features: Float[np.ndarray, "N F"], domains: np.ndarray) -> Self:
        """Learn from the pyramid's features of volumes and their domains.

        Raises:
            InputError: there are not two domains.
        """
        names, counts = np.unique(domains, return_counts=True)
        if len(names) < 2:
            raise InputError(
                f"The held-out scans are all of the domain {names[0]}; a style that was asked for can be "
                "recognised only among two domains or more."
            )
        pipeline = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS, class_weight="balanced")
        )
        shares = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
        return cls(pipeline=pipeline.fit(_look(features), domains), shares=shares)

    @property
    def chance(self) -> float:
        return 1.0 / len(self.shares)

    def recognised(self, features: Float[np.ndarray, "N F"]) -> np.ndarray:
        """The domain (N,) that each volume looks like."""
        return self.pipeline.predict(_look(features))


def _look(features: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N G"]:
    """The pyramid's features without the means of the volume's parts."""
    return np.concatenate([features[:, :BINS], features[:, BINS + PARTS**3 :]], axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetStyles:
    """Crops of one domain, asked for in the style of another.

    Attributes:
        content: index (N,) of the crop whose content is asked for.
        style: index (N,) of the crop whose scan's style is.
    """

    content: np.ndarray
    style: np.ndarray

    def __len__(self) -> int:
        return len(self.content)

    def first(self, count: int) -> "TargetStyles":
        return TargetStyles(content=self.content[:count], style=self.style[:count])


def draw_target_styles(crops: RealCrops, seed: int) -> TargetStyles:
    """For each crop the style of another domain, drawn evenly; crops that no other style fits are left out.

    CT takes styles of CT; MR those of its own body region (the first words of a domain's name), since an MR
    style of another region would ask for the contrast of tissues that the content does not have.

    Raises:
        InputError: no crop has a fitting style.
    """
    rng = np.random.default_rng(seed)
    families = families_of(crops)
    pairs = []
    for content in range(len(crops)):
        fitting = (families == families[content]) & (crops.domains != crops.domains[content])
        if fitting.any():
            domain = rng.choice(np.unique(crops.domains[fitting]))
            pairs.append((content, int(rng.choice(np.flatnonzero(crops.domains == domain)))))
    if not pairs:
        raise InputError(
            "No held-out scan has another domain of its modality and body region beside it, so no style can "
            "be changed; add such scans to the test split."
        )
    content, style = np.array(pairs).T
    return TargetStyles(content=content, style=style)


def families_of(crops: RealCrops) -> np.ndarray:
    """Among which crops (N,) a style may be taken: those of one word."""
    return np.array(
        [
            "CT" if modality == "CT" else "-".join(str(domain).split("-")[:2])
            for modality, domain in zip(crops.modalities, crops.domains, strict=True)
        ]
    )

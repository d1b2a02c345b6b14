"""Target styles of held-out crops, and the probe of the domain of a sample (specification, section 13).

The probe is a logistic regression on image features that are independent of the model, fitted to real crops.
A generator can only write images that its tokenizer can decode. The real crops are therefore encoded and
decoded too; otherwise the probe would recognise the tokenizer instead of the scanner.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from sklearn.pipeline import Pipeline

from meduet_training.evaluation.metrics.probes import linear_classifier
from meduet_training.evaluation.metrics.pyramid_features import BINS, BLOCKS
from meduet_training.evaluation.synthesis.real_crops import RealCrops
from napari_meduet.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class DomainProbe:
    """A probe of the domain that uses intensities and gradients, but not the layout of the volume.

    Attributes:
        fractions: fraction of each domain among the fitted crops, the prior of the probe.
    """

    pipeline: Pipeline
    fractions: dict[str, float]

    @classmethod
    def fit(cls, features: Float[np.ndarray, "N F"], domains: np.ndarray) -> Self:
        """Fit the probe to pyramid features of volumes, and their domains.

        Raises:
            InputError: there are fewer than two domains.
        """
        names, counts = np.unique(domains, return_counts=True)
        if len(names) < 2:
            raise InputError(
                f"All held-out scans have the domain {names[0]}. A target style can only be recognised "
                "among two domains or more; add held-out scans of another domain."
            )
        fractions = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
        return cls(pipeline=linear_classifier().fit(_without_layout(features), domains), fractions=fractions)

    @property
    def chance(self) -> float:
        """Accuracy of a random guess."""
        return 1.0 / len(self.fractions)

    def predict(self, features: Float[np.ndarray, "N F"]) -> np.ndarray:
        """Return the predicted domain (N,) of each volume."""
        return self.pipeline.predict(_without_layout(features))


def _without_layout(features: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N G"]:
    """Return the pyramid features without the means of the blocks."""
    return np.concatenate([features[:, :BINS], features[:, BINS + BLOCKS**3 :]], axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetStyles:
    """Pairs of a content crop and a target style of another domain.

    Attributes:
        content: (N,), indices of the content crops.
        style: (N,), indices of the crops whose scans give the style.
    """

    content: np.ndarray
    style: np.ndarray

    def __len__(self) -> int:
        return len(self.content)

    def first(self, count: int) -> "TargetStyles":
        """Return the first pairs."""
        return TargetStyles(content=self.content[:count], style=self.style[:count])


def draw_target_styles(crops: RealCrops, seed: int) -> TargetStyles:
    """Draw a style of another domain for each crop, evenly over domains; crops without one are left out.

    CT crops take styles of CT. MR crops take styles of their body region (the first two words of the domain),
    because the style of another region holds the contrast of tissues that the content does not have.

    Raises:
        InputError: no crop has a compatible style.
    """
    rng = np.random.default_rng(seed)
    families = families_of(crops)
    pairs = []
    for content in range(len(crops)):
        compatible = (families == families[content]) & (crops.domains != crops.domains[content])
        if compatible.any():
            domain = rng.choice(np.unique(crops.domains[compatible]))
            pairs.append((content, int(rng.choice(np.flatnonzero(crops.domains == domain)))))
    if not pairs:
        raise InputError(
            "The held-out scans of each modality and body region have one domain, so no style can be "
            "changed. Add scans of other domains to the test split."
        )
    content, style = np.array(pairs).T
    return TargetStyles(content=content, style=style)


def families_of(crops: RealCrops) -> np.ndarray:
    """Return a group name for each crop (N,); styles are compatible within a group."""
    return np.array(
        [
            "CT" if modality == "CT" else "-".join(str(domain).split("-")[:2])
            for modality, domain in zip(crops.modalities, crops.domains, strict=True)
        ]
    )

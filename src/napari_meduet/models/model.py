"""A loaded model: its networks, its card, and the standardisation of its latents.

`loading.py` builds a `Model` from a model folder and `saving.py` writes one. `card.py` holds the model card.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from napari_meduet.core.analysis.classifier import ScanClassifier
from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.core.meduet import MeDUET
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.errors import InputError
from napari_meduet.models.card import Modality, ModelCard, ProfileCard
from napari_meduet.models.styles import Style
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import IntensityProfile, fit_mr_profile


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model ready to use.

    Attributes:
        card: the model card.
        sha256: the identity of the model (`ModelCard.sha256`). Styles and results store it.
        device: the torch device of the networks.
        tokenizer: encodes volumes to latents and decodes them.
        meduet: separates a standardised latent into content and style tokens, and joins them.
        latents: mean and standard deviation of the tokenizer's latents.
        known_styles: the styles of the training domains, by domain name.
        generator: generates latents from factors of `meduet`; None if the folder has no generator.
        control: makes the generator follow a mask; None if the folder has no ControlNet.
        segmenter, classifier: networks that read standardised latents; None if the folder has none.
    """

    card: ModelCard
    sha256: str
    device: torch.device
    tokenizer: Tokenizer
    meduet: MeDUET
    latents: LatentStandardisation
    known_styles: Mapping[str, Style] = field(default_factory=dict)
    generator: Generator | None = None
    control: ControlNet | None = None
    segmenter: LatentUNETR | None = None
    classifier: ScanClassifier | None = None

    @property
    def token_voxels(self) -> tuple[int, int, int]:
        """Voxels of the working grid in one token, along each axis."""
        x, y, z = (self.meduet.config.patch_size * stride for stride in self.tokenizer.stride)
        return x, y, z

    @property
    def window_voxels(self) -> tuple[int, int, int]:
        """Voxels of the working grid in one window of `meduet`, along each axis."""
        x, y, z = (
            tokens * voxels for tokens, voxels in zip(self.meduet.config.grid, self.token_voxels, strict=True)
        )
        return x, y, z

    def standardised(self, latent: Tensor) -> Tensor:
        """Return a latent of the tokenizer, (C, x, y, z) or (B, C, x, y, z), as the networks read it."""
        return self.latents.standardised(latent)

    def restored(self, latent: Tensor) -> Tensor:
        """Return a standardised latent as the tokenizer decodes it: the inverse of `standardised`."""
        return self.latents.restored(latent)

    def profile_for(self, values: Any, modality: Modality) -> IntensityProfile:
        """Return the intensity profile of a scan: the card's for CT, fitted to the values for MR (M-03).

        Raises:
            InputError: the model was not trained on this modality, or the MR scan has no contrast.
        """
        if modality not in self.card.modalities:
            raise InputError(
                f"The model {self.card.name} knows {' and '.join(self.card.modalities)}, not {modality}. "
                "Choose another model, or give the right modality."
            )
        return scan_profile(self.card.profiles[modality], values)


def scan_profile(card: ProfileCard, values: Any) -> IntensityProfile:
    """Return the intensity profile of one scan: the knots of the card, or a profile fitted to an MR scan.

    Args:
        values: the voxels of the scan; not used if the card has knots.

    Raises:
        InputError: the MR scan has no contrast.
    """
    return IntensityProfile(card.name, card.knots) if card.knots else fit_mr_profile(values)

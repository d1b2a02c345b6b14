"""The specification of latents: tokenizer, intensity profiles and grid. All latents of one cache share it.

Latents of different tokenizers or profiles have the same format, so they are told apart only by this
specification. Every entry of a latent cache carries its digest. `tokenizer_files.py` loads a tokenizer
together with the specification of its latents.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from torch import nn

from napari_meduet.errors import InputError
from napari_meduet.models.card import ProfileCard, TokenizerCard
from napari_meduet.models.model import scan_profile
from napari_meduet.tokenizers.registry import tokenizer_type
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import CT_FULL, IntensityProfile, profile_named
from napari_meduet.volumes.preparation import WORKING_SPACING_MM
from napari_meduet.volumes.volume import Modality

# Raise this number whenever the same scan would be prepared to other numbers (resampling, body mask, MR
# percentiles). tests/training/data/test_latent_entry.py fails after such a change.
PREPARATION = 1


class LatentSpec(BaseModel):
    """Everything that decides what a latent means, as plain data.

    Attributes:
        tokenizer, tokenizer_config: name and configuration, as in the tokenizer registry.
        tokenizer_sha256: digest of configuration and weights (`tokenizer_sha256`).
        channels: numbers per latent voxel.
        stride: voxels per latent voxel, along x, y and z.
        profiles: the intensity profile of each modality that the tokenizer encodes.
        spacing_mm: voxel size of the working grid.
        preparation: version of the code that prepares scans.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenizer: str
    tokenizer_config: dict[str, Any]
    tokenizer_sha256: str
    channels: int
    stride: tuple[int, int, int]
    profiles: dict[Modality, ProfileCard]
    spacing_mm: float
    preparation: int = PREPARATION

    @property
    def sha256(self) -> str:
        """Digest of the whole specification."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def profile_for(self, values: Any, modality: Modality) -> IntensityProfile:
        """Return the intensity profile of a scan: fixed for CT, fitted to the values for MR (M-03).

        Raises:
            InputError: the specification has no profile for this modality, or the scan has no contrast.
        """
        if modality not in self.profiles:
            known = " and ".join(self.profiles)
            raise InputError(f"The tokenizer's model knows {known}, not {modality}; give another tokenizer.")
        return scan_profile(self.profiles[modality], values)

    @property
    def ct_profile(self) -> IntensityProfile:
        """The intensity profile for CT; `ct-full` if the tokenizer belongs to a model without CT."""
        return self.profile_for((), "CT") if "CT" in self.profiles else CT_FULL

    def with_ct_profile(self, profile: ProfileCard) -> "LatentSpec":
        """Return the specification with another intensity profile for CT.

        Raises:
            InputError: the tokenizer belongs to a model without CT.
        """
        if "CT" not in self.profiles:
            known = " and ".join(self.profiles)
            raise InputError(f"The tokenizer's model knows {known}, so a CT profile has no effect; omit it.")
        return self.model_copy(update={"profiles": {**self.profiles, "CT": profile}})

    def tokenizer_card(self, mean: Sequence[float], std: Sequence[float]) -> TokenizerCard:
        """Return the tokenizer's part of a model card.

        Args:
            mean, std: standardisation of each latent channel.
        """
        return TokenizerCard(
            name=self.tokenizer,
            config=self.tokenizer_config,
            latent_mean=tuple(mean),
            latent_std=tuple(std),
        )

    def difference(self, other: "LatentSpec") -> str | None:
        """Return how the other specification differs, in words that follow "was made", or None."""
        if self.tokenizer_sha256 != other.tokenizer_sha256 or self.tokenizer != other.tokenizer:
            return (
                f"by another tokenizer ({other.tokenizer} {other.tokenizer_sha256[:8]}, not "
                f"{self.tokenizer} {self.tokenizer_sha256[:8]})"
            )
        if self.profiles != other.profiles:
            return f"with other intensity profiles ({_names(other)}, not {_names(self)})"
        if self.spacing_mm != other.spacing_mm:
            return f"on another spacing ({other.spacing_mm:g} mm, not {self.spacing_mm:g} mm)"
        if self != other:
            return "by a version that prepares scans differently"
        return None


def spec_of(
    tokenizer: Tokenizer,
    profiles: Mapping[Modality, ProfileCard] | None = None,
    spacing_mm: float = WORKING_SPACING_MM,
) -> LatentSpec:
    """Return the specification of the latents of a tokenizer.

    Args:
        profiles: intensity profile of each modality; by default those of the tokenizer registry.
        spacing_mm: voxel size of the working grid.
    """
    if profiles is None:
        names = cast(Mapping[Modality, str], tokenizer_type(tokenizer.name).profiles)
        profiles = {modality: profile_card(name) for modality, name in names.items()}
    return LatentSpec(
        tokenizer=tokenizer.name,
        tokenizer_config=json.loads(_config_json(tokenizer)),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        channels=tokenizer.channels,
        stride=tokenizer.stride,
        profiles=dict(profiles),
        spacing_mm=spacing_mm,
    )


def profile_card(name: str) -> ProfileCard:
    """Return the card of an intensity profile: with knots for CT, without for `mr`.

    Raises:
        InputError: there is no such profile.
    """
    return ProfileCard(name=name, knots=None if name == "mr" else profile_named(name).knots)


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """Return the digest of a tokenizer's configuration and weights.

    The weights count in half precision, because a model folder stores them so.
    """
    digest = hashlib.sha256(_config_json(tokenizer).encode())
    for name, tensor in sorted(cast(nn.Module, tokenizer).state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()


def _config_json(tokenizer: Tokenizer) -> str:
    return json.dumps(asdict(cast(Any, tokenizer).config), sort_keys=True)


def _names(spec: LatentSpec) -> str:
    return " and ".join(f"{modality} {profile.name}" for modality, profile in sorted(spec.profiles.items()))

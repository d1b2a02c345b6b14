"""What the numbers of a latent cache mean: tokenizer, intensity profiles, grid. One cache has one of each.

A latent of another tokenizer looks like any other, so every entry carries the digest of its specification,
and a cache is refused wherever another one is expected.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from meduet_training.data.tokenizer_files import load_tokenizer, tokenizer_sha256
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, ProfileCard
from napari_meduet.models.loading import load_model
from napari_meduet.tokenizers.maisi import MaisiTokenizer
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import CT_FULL, CT_WIDE, IntensityProfile, fit_mr_profile
from napari_meduet.volumes.preparation import WORKING_SPACING_MM
from napari_meduet.volumes.volume import Modality

# Raise it whenever the same scan would be prepared to other numbers: resampling, body mask, MR percentiles.
# tests/training/test_latent_entry.py notices such a change.
PREPARATION = 1


class LatentSpec(BaseModel):
    """All that decides what a cached latent means, as plain data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenizer: str
    tokenizer_config: dict[str, Any]
    tokenizer_sha256: str
    channels: int
    stride: int
    profiles: dict[Modality, ProfileCard]
    spacing_mm: float
    preparation: int = PREPARATION

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def profile_for(self, values: Any, modality: Modality) -> IntensityProfile:
        """The intensity profile of a scan: fixed for CT, fitted to the values for MR (M-03).

        Raises:
            InputError: the tokenizer knows no such modality, or the scan has no contrast.
        """
        if modality not in self.profiles:
            known = " and ".join(self.profiles)
            raise InputError(f"The tokenizer's model knows {known}, not {modality}; give another tokenizer.")
        profile = self.profiles[modality]
        return IntensityProfile(profile.name, profile.knots) if profile.knots else fit_mr_profile(values)

    def difference(self, other: "LatentSpec") -> str | None:
        """How a cache of the other one was made, in words that follow "was made"; None if as this one's."""
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


def open_tokenizer(path: Path) -> tuple[Tokenizer, LatentSpec]:
    """A tokenizer on the CPU, and what its latents will mean.

    Args:
        path: a folder of `meduet-train tokenizer`, a model folder, or a file of MAISI weights.

    Raises:
        InputError: there is no tokenizer, or it is damaged.
    """
    if path.is_dir():
        if (path / CARD_FILE).is_file():
            model = load_model(path, "cpu")
            card = model.card
            return model.tokenizer, spec_of(model.tokenizer, dict(card.profiles), card.working_spacing_mm)
        tokenizer = load_tokenizer(path)
        return tokenizer, spec_of(tokenizer, {"CT": _fixed(CT_FULL), "MR": ProfileCard(name="mr")})
    if not path.exists():
        raise InputError(
            f"{path.name}: there is no such tokenizer. Give a folder of meduet-train tokenizer, a model "
            "folder, or a file of MAISI weights."
        )
    tokenizer = MaisiTokenizer.from_file(path)
    return tokenizer, spec_of(tokenizer, {"CT": _fixed(CT_WIDE), "MR": ProfileCard(name="mr")})


def spec_of(
    tokenizer: Tokenizer, profiles: dict[Modality, ProfileCard], spacing_mm: float = WORKING_SPACING_MM
) -> LatentSpec:
    """The specification of what this tokenizer writes."""
    config = cast(Any, tokenizer).config
    return LatentSpec(
        tokenizer=tokenizer.name,
        tokenizer_config=asdict(config),
        tokenizer_sha256=tokenizer_sha256(cast(Any, tokenizer)),
        channels=tokenizer.channels,
        stride=tokenizer.stride,
        profiles=profiles,
        spacing_mm=spacing_mm,
    )


def _fixed(profile: IntensityProfile) -> ProfileCard:
    return ProfileCard(name=profile.name, knots=profile.knots)


def _names(spec: LatentSpec) -> str:
    return " and ".join(f"{modality} {profile.name}" for modality, profile in sorted(spec.profiles.items()))

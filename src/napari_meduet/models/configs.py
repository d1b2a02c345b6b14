"""Network configurations, read from the plain data of a model card."""

from collections.abc import Mapping
from typing import Any

from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.models.card import ModelCard

SHARED_SIZES = ("latent_channels", "patch_size", "content_width", "style_width")


def with_tuples(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration from JSON with tuples in place of lists, as the dataclasses expect."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}


def meduet_config(card: ModelCard) -> MeDUETConfig:
    """Return the configuration of the model's MeDUET network."""
    return MeDUETConfig(**with_tuples(card.meduet))


def generator_config(card: ModelCard) -> GeneratorConfig:
    """Return the configuration of the model's generator."""
    return GeneratorConfig(**with_tuples(card.generator or {}))


def generator_mismatch(generator: GeneratorConfig, meduet: MeDUETConfig) -> str | None:
    """Return why a generator cannot read the factors of this MeDUET, or None if it can."""
    for name in SHARED_SIZES:
        of_generator, of_meduet = getattr(generator, name), getattr(meduet, name)
        if of_generator != of_meduet:
            return f"{name} is {of_generator}, but the model's {of_meduet}"
    return None

"""Recipe of the embedded model: two hours on two CPU cores, longer and larger on a GPU."""

from dataclasses import dataclass, field, replace

from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.tokenizer.training import TokenizerTraining
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.tokenizers.wavelet import WaveletConfig


@dataclass(frozen=True, kw_only=True)
class DemoRecipe:
    """The stages of `make model`: tokenizer, latent windows, pretraining.

    Attributes:
        groups: number of anatomies cut from each scan for the latent windows.
    """

    tokenizer: TokenizerTraining
    pretraining: TrainingConfig
    groups: int
    seed: int = 2025


@dataclass(frozen=True, kw_only=True)
class DemoSizes:
    """Sizes and numbers of steps for one kind of device."""

    tokenizer_width: int
    tokenizer_steps: int
    tokenizer_batch: int
    side: int
    groups: int
    network: MeDUETConfig = field(repr=False)
    steps: int
    batch: int


CPU = DemoSizes(
    tokenizer_width=128,
    tokenizer_steps=2_600,
    tokenizer_batch=4,
    side=48,
    groups=10,
    network=MeDUETConfig.tiny(
        depth=4, decoder_depth=3
    ),  # fewer blocks, so that more steps fit into two hours
    steps=900,
    batch=8,
)
GPU = DemoSizes(
    tokenizer_width=192,
    tokenizer_steps=9_000,
    tokenizer_batch=24,
    side=64,
    groups=96,
    network=MeDUETConfig.tiny(width=384, content_width=384, style_width=96),
    steps=12_000,
    batch=64,
)


def demo(device: str) -> DemoRecipe:
    """Return the recipe for a kind of device, "cpu" or "cuda"."""
    sizes = GPU if device == "cuda" else CPU
    objective = swap_with_truth if device == "cuda" else quick_swap_with_truth
    return DemoRecipe(
        tokenizer=TokenizerTraining(
            network=WaveletConfig(width=sizes.tokenizer_width),
            steps=sizes.tokenizer_steps,
            batch=sizes.tokenizer_batch,
            side=sizes.side,
        ),
        pretraining=TrainingConfig(
            network=sizes.network,
            objective=objective(sizes.steps),
            batch=sizes.batch,
            learning_rate=1e-3,
            end_learning_rate=1e-5,
            warmup=0.03,
            linear_start=True,
        ),
        groups=sizes.groups,
    )


def swap_with_truth(steps: int) -> ObjectiveConfig:
    """Return the corrected objective with the terms that need pairs with a known swap.

    Registered and simulated pairs have a known swap. Domains of the demo data are single patients, so pairs
    are drawn across domains.
    """
    return ObjectiveConfig.corrected(
        total_steps=steps,
        pairing="cross_domain",
        full_weight=0.5,
        aligned_weight=2.0,
        aligned_content_weight=0.1,
    )


def quick_swap_with_truth(steps: int) -> ObjectiveConfig:
    """Return `swap_with_truth` without contrast and distillation, which are half of the cost of a step.

    In two hours on two CPU cores, more steps with known swaps give a better model.
    """
    return replace(swap_with_truth(steps), without=("siqc", "mftd"))

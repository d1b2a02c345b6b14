"""The embedded model's recipe: two hours on two CPU cores, longer and larger where there is a GPU."""

from dataclasses import dataclass, field, replace

from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.tokenizer.training import TokenizerTraining
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.tokenizers.wavelet import WaveletConfig


@dataclass(frozen=True, kw_only=True)
class DemoRecipe:
    """What `make model` runs, in order: tokenizer, latent windows, pretraining."""

    tokenizer: TokenizerTraining
    pretraining: TrainingConfig
    groups: int  # anatomies of each scan
    seed: int = 2025


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much of everything a device can afford."""

    tokenizer_width: int
    tokenizer_steps: int
    tokenizer_batch: int
    side: int
    groups: int
    network: MeDUETConfig = field(repr=False)
    steps: int
    batch: int


CPU = Effort(
    tokenizer_width=128,
    tokenizer_steps=2_600,
    tokenizer_batch=4,
    side=48,
    groups=10,
    network=MeDUETConfig.tiny(depth=4, decoder_depth=3),  # fewer blocks: every step counts
    steps=900,
    batch=8,
)
GPU = Effort(
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
    """The recipe for a kind of device, "cpu" or "cuda"."""
    effort = GPU if device == "cuda" else CPU
    objective = swap_with_truth if device == "cuda" else quick_swap_with_truth
    return DemoRecipe(
        tokenizer=TokenizerTraining(
            network=WaveletConfig(width=effort.tokenizer_width),
            steps=effort.tokenizer_steps,
            batch=effort.tokenizer_batch,
            side=effort.side,
        ),
        pretraining=TrainingConfig(
            network=effort.network,
            objective=objective(effort.steps),
            batch=effort.batch,
            learning_rate=1e-3,
            end_learning_rate=1e-5,
            warmup=0.03,
            linear_start=True,
        ),
        groups=effort.groups,
    )


def swap_with_truth(steps: int) -> ObjectiveConfig:
    """`corrected` plus the terms for which registered and simulated pairs give the truth.

    Domains here are single patients, so pairs are drawn across domains and the swap is taught where its
    result is known.
    """
    return ObjectiveConfig.corrected(
        total_steps=steps,
        pairing="cross_domain",
        full_weight=0.5,
        aligned_weight=2.0,
        aligned_content_weight=0.1,
    )


def quick_swap_with_truth(steps: int) -> ObjectiveConfig:
    """The same without contrast and distillation, half of a step's cost.

    On two CPU cores the truth of the swap teaches more in that time.
    """
    return replace(swap_with_truth(steps), without=("siqc", "mftd"))

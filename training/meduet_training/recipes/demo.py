"""The embedded model's recipe: two hours on two CPU cores, or longer on a larger network where there is a GPU."""

from dataclasses import dataclass, replace

from meduet_training.tokenizer_training import TokenizerTraining
from napari_meduet.tokenizers.wavelet import WaveletConfig


@dataclass(frozen=True, kw_only=True)
class DemoRecipe:
    """What `make model` runs, in order."""

    tokenizer: TokenizerTraining


def demo(device: str, *, steps: int | None = None) -> DemoRecipe:
    """The recipe for a kind of device ("cpu" or "cuda")."""
    tokenizer = TokenizerTraining(network=WaveletConfig(width=128), steps=2_600)
    if device == "cuda":
        tokenizer = replace(tokenizer, steps=9_000, batch=24, side=64, network=WaveletConfig(width=192))
    return DemoRecipe(tokenizer=replace(tokenizer, steps=steps or tokenizer.steps))

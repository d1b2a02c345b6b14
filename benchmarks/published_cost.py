"""Count the parameters and operations of the published network and of ours (M-20).

    python benchmarks/published_cost.py

The paper prints 105.1 M parameters and 50.1 G operations for one forward pass of its pretraining network,
which encodes one mixture of two volumes and decodes both. An operation is one multiplication or one addition.
The published network is counted from its layers, without building it. Ours is counted by torch on the meta
device, where nothing is computed. The script fails if the count of the published network differs from the
paper.

A training step is counted from its passes through encoder and decoder. A pass of the student, with its
gradient, counts three times, a pass of the teacher once. tests/core/test_objective.py counts the passes of
our step.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_meduet.core.meduet import MeDUET, MeDUETConfig

PAPER_MILLION_PARAMETERS, PAPER_GIGA_OPERATIONS = 105.1, 50.1

# Passes for each sample: student encodes and decodes, teacher encodes and decodes (specification, section 5).
STEPS = {
    "published passes": (5, 6, 5, 2),  # encodes the partner and decodes the mixtures a second time
    "ours, published terms": (5, 3, 2, 0),  # the second swap of a pair is the first swap of its partner
    "ours": (5, 4, 2, 0),  # includes the full reconstruction
}


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass of one sample. Attention operations are those of softmax(QK)V alone."""

    parameters: int
    weight_operations: int
    attention_operations: int

    @property
    def row(self) -> str:
        weights, products = self.weight_operations / 1e9, self.attention_operations / 1e9
        return f"{self.parameters / 1e6:8.2f} M {weights:8.2f} G {weights + products:8.2f} G"


def block_weights(width: int) -> int:
    """Return the number of weights of a transformer block: attention, and an MLP of four times the width."""
    return 3 * width**2 + width**2 + 2 * 4 * width**2


def block_parameters(width: int) -> int:
    """Return the parameters of a block: weights, biases (9 times the width), two layer norms (4 times)."""
    return block_weights(width) + 13 * width


def attention_products(tokens: int, width: int) -> int:
    """Return the operations of QK and of attention times V."""
    return 2 * (2 * tokens**2 * width)


def classifier_weights(width: int, num_domains: int) -> int:
    return width * 2 * width + (2 * width) ** 2 + 2 * width * num_domains


def classifier_parameters(width: int, num_domains: int) -> int:
    return classifier_weights(width, num_domains) + 4 * width + num_domains


def published() -> Cost:
    """Return the cost of the published network, which has a cls token and a 1-D style convolution."""
    config = MeDUETConfig.base()
    width, narrow, values = config.width, config.decoder_width, config.patch_values
    content, style, domains = config.content_width, config.style_width, config.num_domains
    patches = config.num_tokens
    tokens = patches + 1  # the cls token

    parameters = {
        "encoder": config.depth * block_parameters(width) + 2 * width,
        "patch embedding": values * width + width,
        "2-D patch embedding that the published code never uses": 4 * 4**2 * width + width,
        "cls and mask token": width + narrow,
        "disentangle": width * content + width * style + 3 * style,
        "aggregate": (content + style) * width + width,
        "decoder": config.decoder_depth * block_parameters(narrow) + 2 * narrow,
        "decoder embedding and prediction": width * narrow + narrow + narrow * values + values,
        "classifiers": classifier_parameters(content, domains) + classifier_parameters(style, domains),
    }
    encode = tokens * config.depth * block_weights(width) + patches * values * width
    factors = patches * (width * content + width * style + 3 * style + (content + style) * width)
    decode = tokens * (config.decoder_depth * block_weights(narrow) + narrow * values)
    classify = classifier_weights(content, domains) + classifier_weights(style, domains)
    weight_products = encode + factors + tokens * width * narrow + 2 * decode + 2 * classify
    products = config.depth * attention_products(tokens, width)
    products += 2 * config.decoder_depth * attention_products(tokens, narrow)
    return Cost(sum(parameters.values()), 2 * weight_products, products)


def ours(config: MeDUETConfig) -> Cost:
    """Return the cost of our network in the same forward pass, counted by torch."""
    with torch.device("meta"):
        network = MeDUET(config)
        latent, mask = torch.empty(1, *config.latent_shape), torch.empty(1, config.num_tokens)
    with FlopCounterMode(display=False) as counter:
        content, style = network.encode(latent, mask)
        fused = network.decoder.fuse(content, style)
        for visible in (1 - mask, mask):
            network.decoder(fused, visible)
            network.domain_logits(content.mean(dim=1), style.mean(dim=1))
    by_kind = counter.get_flop_counts()["Global"]
    attention = sum(
        count for kind, count in by_kind.items() if "bmm" in str(kind) or "attention" in str(kind)
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() - attention, attention)


def giga_per_pass(config: MeDUETConfig) -> tuple[float, float]:
    """Return the GFLOP for encoding one latent, and for decoding it."""
    with torch.device("meta"):
        network, latent = MeDUET(config), torch.empty(1, *config.latent_shape)
    with FlopCounterMode(display=False) as encoding:
        factors = network.encode(latent)
    with FlopCounterMode(display=False) as decoding:
        network.decode(*factors)
    return encoding.get_total_flops() / 1e9, decoding.get_total_flops() / 1e9


def giga_per_sample(passes: tuple[int, int, int, int], config: MeDUETConfig) -> float:
    """Return the GFLOP of a training step for each sample, from its passes."""
    encode, decode = giga_per_pass(config)
    student_encodes, student_decodes, teacher_encodes, teacher_decodes = passes
    student = student_encodes * encode + student_decodes * decode
    return 3 * student + teacher_encodes * encode + teacher_decodes * decode


def main() -> None:
    reference = published()
    print(f"{'':>12}{'parameters':>10} {'weights':>10} {'+ attention':>11}")
    print(f"{'published':>12}{reference.row}")
    for preset in (MeDUETConfig.base, MeDUETConfig.small, MeDUETConfig.tiny):
        print(f"{preset.__name__:>12}{ours(preset()).row}")
    print(
        "\nbase differs from the published network in four ways. It has no unused 2-D patch embedding\n"
        "(-49,920 parameters). It has no cls token in the encoder (-768 parameters, and one token less),\n"
        "and a learned constant in the decoder (+384, C-03). Its style convolution has a kernel of 3^3\n"
        "instead of 3 (+4,608, C-26), and runs for each of the two volumes of a mixture."
    )
    encode, decode = giga_per_pass(MeDUETConfig.base())
    print(f"\nTraining step of base, for each sample (encode {encode:.1f} G, decode {decode:.1f} G):")
    costs = {name: giga_per_sample(passes, MeDUETConfig.base()) for name, passes in STEPS.items()}
    for name, cost in costs.items():
        print(f"{name:>24}{cost:8.0f} G{costs['published passes'] / cost:8.2f} x")

    million, giga = reference.parameters / 1e6, reference.weight_operations / 1e9
    if abs(million - PAPER_MILLION_PARAMETERS) >= 0.1 or abs(giga - PAPER_GIGA_OPERATIONS) >= 0.1:
        raise SystemExit(
            f"The count differs from the paper, which prints {PAPER_MILLION_PARAMETERS} M parameters and "
            f"{PAPER_GIGA_OPERATIONS} G."
        )


if __name__ == "__main__":
    main()

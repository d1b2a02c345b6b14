"""Parameters and operations of the published network, counted by hand, beside ours, counted by torch (M-20).

    python benchmarks/published_cost.py

The paper prints 105.1 M parameters and 50.1 G for one forward of its pretraining network: encode one
mixture of two volumes, decode both. An operation is one multiplication or one addition. The published network
is counted from its layers, not built; ours is built on torch's meta device, where nothing is computed. The
script fails if the published count leaves the paper's figures.

A training step is counted from its passes through encoder and decoder: three times a forward for the student,
once for the teacher. tests/core/test_objective.py counts the passes of ours.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_meduet.core.meduet import MeDUET, MeDUETConfig

PAPER_MILLION_PARAMETERS, PAPER_GIGA_OPERATIONS = 105.1, 50.1

# Encodes and decodes of the student, then of the teacher, for each sample (specification, section 5).
STEPS = {
    "published passes": (5, 6, 5, 2),  # the partner is encoded again, mixtures are decoded again
    "ours, published terms": (5, 3, 2, 0),  # a pair's second swap is its partner's first
    "ours": (5, 4, 2, 0),  # with the full reconstruction
}


@dataclass(frozen=True)
class Cost:
    """What one forward of one sample takes; attention products are those of softmax(QK)V, without weights."""

    parameters: int
    weight_operations: int
    attention_operations: int

    @property
    def row(self) -> str:
        weights, products = self.weight_operations / 1e9, self.attention_operations / 1e9
        return f"{self.parameters / 1e6:8.2f} M {weights:8.2f} G {weights + products:8.2f} G"


def block_weights(width: int) -> int:
    """Weights of one transformer block: queries, keys, values and output, and an MLP of four widths."""
    return 3 * width**2 + width**2 + 2 * 4 * width**2


def block_parameters(width: int) -> int:
    """The same with biases (3 + 1 + 4 + 1 widths) and two layer norms (4 widths)."""
    return block_weights(width) + 13 * width


def attention_products(tokens: int, width: int) -> int:
    """Operations of queries by keys and of attention by values."""
    return 2 * (2 * tokens**2 * width)


def classifier_weights(width: int, num_domains: int) -> int:
    return width * 2 * width + (2 * width) ** 2 + 2 * width * num_domains


def classifier_parameters(width: int, num_domains: int) -> int:
    return classifier_weights(width, num_domains) + 4 * width + num_domains


def published() -> Cost:
    """The published network: cls token through encoder and decoder, 1-D style convolution, ten domains."""
    config = MeDUETConfig.base()
    width, narrow, values = config.width, config.decoder_width, config.patch_values
    content, style, domains = config.content_width, config.style_width, config.num_domains
    patches = config.num_tokens
    tokens = patches + 1  # the cls token

    parameters = {
        "encoder": config.depth * block_parameters(width) + 2 * width,
        "patch embedding": values * width + width,
        "2-D patch embedding that the code inherits and never uses": 4 * 4**2 * width + width,
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
    """Our network, counted by torch in the same forward."""
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
    """Operations of encoding one latent and of decoding it, in 10^9."""
    with torch.device("meta"):
        network, latent = MeDUET(config), torch.empty(1, *config.latent_shape)
    with FlopCounterMode(display=False) as encoding:
        factors = network.encode(latent)
    with FlopCounterMode(display=False) as decoding:
        network.decode(*factors)
    return encoding.get_total_flops() / 1e9, decoding.get_total_flops() / 1e9


def giga_per_sample(passes: tuple[int, int, int, int], config: MeDUETConfig) -> float:
    """Operations of a training step for each sample, in 10^9: encodes and decodes of student and teacher."""
    encode, decode = giga_per_pass(config)
    encodes, decodes, taught, retold = passes
    return 3 * (encodes * encode + decodes * decode) + taught * encode + retold * decode


def main() -> None:
    reference = published()
    print(f"{'':>12}{'parameters':>10} {'weights':>10} {'+ attention':>11}")
    print(f"{'published':>12}{reference.row}")
    for preset in (MeDUETConfig.base, MeDUETConfig.small, MeDUETConfig.tiny):
        print(f"{preset.__name__:>12}{ours(preset()).row}")
    print(
        "\nbase differs from the published network in four places: no 2-D patch embedding that nothing uses\n"
        "(-49,920 parameters); no cls token in the encoder (-768, one token less to encode) and a learned\n"
        "constant in the decoder (+384, C-03); a 3^3 style convolution for one of 3 (+4,608, C-26), run for\n"
        "each of the two volumes of a mixture."
    )
    encode, decode = giga_per_pass(MeDUETConfig.base())
    print(f"\nA step of base, for each sample (encode {encode:.1f} G, decode {decode:.1f} G):")
    costs = {name: giga_per_sample(passes, MeDUETConfig.base()) for name, passes in STEPS.items()}
    for name, cost in costs.items():
        print(f"{name:>24}{cost:8.0f} G{costs['published passes'] / cost:8.2f} x")

    million, giga = reference.parameters / 1e6, reference.weight_operations / 1e9
    if abs(million - PAPER_MILLION_PARAMETERS) >= 0.1 or abs(giga - PAPER_GIGA_OPERATIONS) >= 0.1:
        raise SystemExit(f"The paper prints {PAPER_MILLION_PARAMETERS} M and {PAPER_GIGA_OPERATIONS} G.")


if __name__ == "__main__":
    main()

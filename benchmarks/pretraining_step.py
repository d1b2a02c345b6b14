"""Measure one pretraining step, compared with the published passes and with a matrix product.

    python benchmarks/pretraining_step.py                # base, batch 4, on the CPU
    python benchmarks/pretraining_step.py --preset tiny  # takes seconds, for a test of the script
    python benchmarks/pretraining_step.py --device cuda  # batch 64 in bf16, compiled and not compiled

A step consists of forward pass, backward pass, clipping, optimizer and teacher, after distillation has begun.
It has the terms of the paper, without our full reconstruction. `DirectObjective` computes the same losses of
the same rows with the published passes: for each sample, the student encodes 5 times and decodes 6 times, the
teacher 5 and 2 times. It runs one pass after the other, stores its attention matrices, and shares no result.

Both methods and a 2048 x 2048 matrix product take turns, so that other work slows all of them; the ratios are
ratios of medians. The script fails if the losses differ, if the number of passes is wrong, or if `base`
misses a goal: 1.15 times faster, 75 % of the rate of matrix products.
"""

import argparse
import copy
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch
from einops import rearrange
from published_cost import (
    PAPER_GIGA_OPERATIONS,
    PAPER_MILLION_PARAMETERS,
    STEPS,
    giga_per_sample,
    published,
)
from torch import Tensor, nn

from meduet_training.runtime.optimizer import adamw
from napari_meduet.core.demixing import draw_pairs, mix, reconstruction_loss
from napari_meduet.core.disentanglement import domain_cross_entropy, domain_loss
from napari_meduet.core.factors import weighted_mean
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.mftd import factor_distillation, mixed_factor_distillation, token_distance
from napari_meduet.core.objective import Batch, Objective, ObjectiveConfig, pretraining_loss
from napari_meduet.core.siqc import (
    compared_styles,
    compared_views,
    pooled_view,
    positive_pairs,
    supervised_contrast,
    swap_contrast,
    swap_styles,
    view_labels,
    view_similarity,
)
from napari_meduet.core.teacher import teacher_decay
from napari_meduet.core.transformer import Attention, Block

PRESETS = {"base": MeDUETConfig.base, "small": MeDUETConfig.small, "tiny": MeDUETConfig.tiny}
TERMS = ObjectiveConfig.corrected(full_weight=0.0)  # only Eq. 13
STEP = TERMS.total_steps // 2  # distillation has begun
GOAL_SPEED, GOAL_RATE, GOAL_DIFFERENCE = 1.15, 0.75, 1e-6
PASSES = "student encodes", "student decodes", "teacher encodes", "teacher decodes"
GEMM = 2048
PAPER_HOURS, PAPER_BATCH, PAPER_STEPS = 405, 256, 200_000  # hours on one A100 (M-20)


class EagerAttention(nn.Module):
    """Attention with the same weights, which stores its attention matrix."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads, self.qkv, self.out = attention.num_heads, attention.qkv, attention.out

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(tokens), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        query, key, value = qkv
        weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        return self.out(rearrange(weights @ value, "b h l d -> b l (h d)"))


class DirectObjective(nn.Module):
    """The losses of `Objective`, computed with the published passes.

    The second swap of a row equals the first swap of its partner. It is computed again, and the mean of the
    two equal swaps is used, so that both have a gradient. The teacher decodes swaps of its own, as in the
    published code. In the first step the teacher equals the student, so these swaps equal those of the
    student.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.config = objective.config
        self.student, self.teacher = copy.deepcopy(objective.student), copy.deepcopy(objective.teacher)
        self.log_scale = nn.Parameter(objective.log_scale.detach().clone())
        for module in list(self.modules()):
            if isinstance(module, Block):
                module.attention = EagerAttention(module.attention)

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        config, student = self.config, self.student
        latent, domain = batch["latent"], batch["domain"]
        mask, partner = batch["mask"], batch["partner"]
        nothing, everything = torch.zeros_like(mask), torch.ones_like(mask)

        # Reconstruction and domains, from the mixture.
        mixture = student.encode(mix(latent, latent[partner], mask, student.config.grid), mask)
        recovered_i = self._decode(student, mixture, 1 - mask)
        recovered_j = self._decode(student, mixture, mask)
        reconstruction = reconstruction_loss(recovered_i, recovered_j, latent, latent[partner])
        entropies = []
        for weight, labels in ((1 - mask, domain), (mask, domain[partner])):
            logits = student.domain_logits(*(weighted_mean(factor, weight) for factor in mixture))
            entropies.append([domain_cross_entropy(each, labels) for each in logits])
        (content_i, style_i), (content_j, style_j) = entropies
        domains = domain_loss(content_i, content_j, style_i, style_j, config.domain_reduction)

        # Distillation: both volumes are decoded again, encoded, and compared with the tokens of the teacher.
        again_i = student.encode(self._decode(student, mixture, 1 - mask), nothing)
        again_j = student.encode(self._decode(student, mixture, mask), nothing)
        with torch.no_grad():
            target_i = self.teacher.encode(latent, nothing)
            target_j = self.teacher.encode(latent[partner], nothing)
        content, style = (
            factor_distillation(token_distance(i, teacher_i), token_distance(j, teacher_j), mask)
            for i, j, teacher_i, teacher_j in zip(again_i, again_j, target_i, target_j, strict=True)
        )
        distillation = mixed_factor_distillation(
            content, style, config.content_weight, config.distillation_scale
        )

        # Contrast between volumes and swaps, with student and teacher.
        clean = student.encode(latent, nothing)
        swap = self._swaps(student, clean, partner, everything)
        queries = self._views(clean, student.encode(swap, nothing))
        with torch.no_grad():
            taught = self.teacher.encode(latent, nothing)
            swap_ij = self._decode(self.teacher, swap_styles(*taught, partner), everything)
            swap_ji = self._decode(self.teacher, (taught[0][partner], taught[1]), everything)
            taught_ij, taught_ji = (self.teacher.encode(each, nothing) for each in (swap_ij, swap_ji))
            swapped = tuple((ij + ji[partner]) / 2 for ij, ji in zip(taught_ij, taught_ji, strict=True))
            keys = self._views(taught, swapped)
        labels = view_labels(domain, partner)
        compared = compared_views(labels, labels, config.scope)
        allowed = compared, compared_styles(labels, labels, compared, config.style_negatives)
        contrast = swap_contrast(
            *(
                supervised_contrast(
                    view_similarity(query, key, self.log_scale.squeeze(0), pairs),
                    positive_pairs(factor, factor, pairs),
                )
                for query, key, pairs, factor in zip(
                    queries, keys, allowed, (labels.content, labels.style), strict=True
                )
            )
        )

        losses = {
            "reconstruction": reconstruction,
            "domain": domains,
            "distillation": distillation,
            "contrast": contrast,
        }
        total = pretraining_loss(
            *losses.values(),
            domain_weight=config.domain_weight,
            distillation_weight=config.distillation_weight,
            contrast_weight=config.contrast_weight,
        )
        return losses | {"total": total}

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        decay = teacher_decay(step, self.config.total_steps)
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.mul_(decay).add_(fast, alpha=1 - decay)

    def _decode(self, network: MeDUET, factors: tuple[Tensor, ...], visible: Tensor) -> Tensor:
        return network.decoder(network.decoder.fuse(*factors), visible)

    def _swaps(
        self, network: MeDUET, clean: tuple[Tensor, Tensor], partner: Tensor, everything: Tensor
    ) -> Tensor:
        swap_ij = self._decode(network, swap_styles(*clean, partner), everything)
        swap_ji = self._decode(network, (clean[0][partner], clean[1]), everything)
        return (swap_ij + swap_ji[partner]) / 2

    def _views(self, volumes: tuple[Tensor, ...], swaps: tuple[Tensor, ...]) -> list[Tensor]:
        pairs = zip(volumes, swaps, strict=True)
        return [torch.cat([pooled_view(volume), pooled_view(swap)]) for volume, swap in pairs]


def random_batch(network: MeDUETConfig, num_volumes: int, device: str = "cpu") -> Batch:
    """Return random latents of two domains, with the pairs and masks of a step."""
    generator = torch.Generator().manual_seed(0)
    domain = torch.arange(num_volumes) % 2
    masks = [TERMS.draw(network, generator)["mask"] for _ in range(num_volumes)]
    batch: Batch = {
        "latent": torch.randn(num_volumes, *network.latent_shape, generator=generator),
        "domain": domain,
        "partner": draw_pairs(domain, "random", generator),
        "mask": torch.stack(masks),
    }
    return {name: field.to(device) for name, field in batch.items()}  # pyright: ignore[reportReturnType]


def count_passes(method: nn.Module, batch: Batch) -> tuple[int, ...]:
    """Return the encodes and decodes of student and teacher for each sample."""
    samples = Counter()
    networks = [getattr(method, owner) for owner in ("student", "teacher")]
    parts = [part for network in networks for part in (network.encoder, network.decoder)]
    hooks = [
        part.register_forward_pre_hook(lambda _, inputs, name=name: samples.update({name: len(inputs[0])}))
        for name, part in zip(PASSES, parts, strict=True)
    ]
    with torch.no_grad():
        method(batch, STEP)
    for hook in hooks:
        hook.remove()
    return tuple(samples[name] // len(batch["latent"]) for name in PASSES)


def losses_and_gradients(method: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    losses = method(batch, STEP)
    losses["total"].backward()
    gradients = {
        name.replace("attention.", ""): parameter.grad.clone()
        for name, parameter in method.named_parameters()
        if parameter.grad is not None
    }
    method.zero_grad(set_to_none=True)
    return losses, gradients


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest difference of all common tensors, relative to the largest number of each."""
    return max(
        float((value - theirs[name]).detach().abs().max() / theirs[name].abs().max().clamp(min=1e-12))
        for name, value in ours.items()
        if name in theirs
    )


def training_step(method: nn.Module, batch: Batch) -> Callable[[], None]:
    optimizer = adamw(method, learning_rate=1e-4, weight_decay=1e-2, betas=(0.9, 0.95))

    def step() -> None:
        with torch.autocast(batch["latent"].device.type, torch.bfloat16, enabled=batch["latent"].is_cuda):
            losses = method(batch, STEP)
        losses["total"].backward()
        nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.finish_step(STEP)

    return step


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_product(device: str = "cpu") -> tuple[Callable[[], Tensor], float]:
    """Return a matrix product that takes long enough to be timed, and its GFLOP."""
    size = GEMM if device == "cpu" else 8192
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    return lambda: left @ right, 2 * size**3 / 1e9


def check_equal(objective: Objective, direct: DirectObjective, batch: Batch) -> None:
    """Check that both methods have the same losses, and the expected numbers of passes.

    Raises:
        SystemExit: a loss or a number of passes differs.
    """
    expected = {"ours": STEPS["ours, published terms"], "direct": STEPS["published passes"]}
    for name, method in (("ours", objective), ("direct", direct)):
        passes = count_passes(method, batch)
        print(f"{name:>16}: " + ", ".join(f"{n} {word}" for n, word in zip(passes, PASSES, strict=True)))
        if passes != expected[name]:
            raise SystemExit(f"{name}: the passes for each sample are {passes}, expected {expected[name]}.")
    ours, our_gradients = losses_and_gradients(objective, batch)
    theirs, their_gradients = losses_and_gradients(direct, batch)
    losses, gradients = (
        largest_difference(ours, theirs),
        largest_difference(our_gradients, their_gradients),
    )
    print(f"largest relative difference of a loss {losses:.1e}, of a gradient {gradients:.1e}")
    if losses > GOAL_DIFFERENCE:
        raise SystemExit(f"The losses differ by {losses:.1e}; the limit is {GOAL_DIFFERENCE}.")


def on_cpu(network: MeDUETConfig, num_volumes: int, rounds: int) -> None:
    torch.manual_seed(0)
    batch = random_batch(network, num_volumes)
    objective = Objective(network, TERMS)
    direct = DirectObjective(objective)
    check_equal(objective, direct, batch)

    product, product_giga = matrix_product()
    methods = {
        "direct": training_step(direct, batch),
        "ours": training_step(objective, batch),
        "matrix product": product,
    }
    product()
    times: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, work in methods.items():
            # Matrix products before and after each step, because the rate drifts.
            taken = [seconds(work) for _ in range(1 if name != "matrix product" else 5)]
            times[name] += taken if number else []  # the first round is a warm-up
    medians = {name: statistics.median(each) for name, each in times.items()}
    rate = product_giga / medians["matrix product"]
    print(f"\nbatch {num_volumes}, {torch.get_num_threads()} threads, fp32, medians of {rounds} rounds")
    print(f"{'matrix product':>16}: {rate:.0f} GFLOP/s")
    fractions = {}
    for name, passes in (("direct", "published passes"), ("ours", "ours, published terms")):
        giga = num_volumes * giga_per_sample(STEPS[passes], network)
        fractions[name] = giga / medians[name] / rate
        print(f"{name:>16}: {medians[name]:.2f} s, {giga:.0f} GFLOP, {fractions[name]:.0%} of that rate")
    speed = medians["direct"] / medians["ours"]
    print(f"ours is {speed:.2f} times faster (goal: {GOAL_SPEED})")
    if network == MeDUETConfig.base() and (speed < GOAL_SPEED or fractions["ours"] < GOAL_RATE):
        raise SystemExit(
            f"Goal missed: {GOAL_SPEED} times faster, {GOAL_RATE:.0%} of the rate of matrix products."
        )


def on_gpu(network: MeDUETConfig, num_volumes: int, rounds: int) -> None:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    batch = random_batch(network, num_volumes, "cuda")
    giga = num_volumes * giga_per_sample(STEPS["ours, published terms"], network)
    product, product_giga = matrix_product("cuda")
    for compiled in (False, True):
        objective = Objective(network, TERMS).to("cuda")
        step = training_step(objective, batch)
        if compiled:
            objective.compile()
        for _ in range(3):
            step()
            product()
        torch.cuda.reset_peak_memory_stats()
        pairs = [(seconds(step, "cuda"), seconds(product, "cuda")) for _ in range(rounds)]
        step_s, product_s = (statistics.median(column) for column in zip(*pairs, strict=True))
        rate, hours = product_giga / product_s, PAPER_STEPS * PAPER_BATCH / num_volumes * step_s / 3600
        print(
            f"{'compiled' if compiled else 'not compiled':>14}: {step_s:.3f} s for a step of {num_volumes}, "
            f"{num_volumes / step_s:.0f} samples/s, {giga / step_s / rate:.0%} of {rate / 1e3:.0f} TFLOP/s "
            f"(bf16 matrix product), peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, "
            f"{hours:.0f} hours for {PAPER_STEPS} steps of {PAPER_BATCH} (paper: {PAPER_HOURS} A100-hours)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--preset", choices=PRESETS, default="base", help="Size of the network. Default: base."
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="Device. Default: cpu.")
    parser.add_argument("--batch", type=int, help="Rows of a batch. Default: 4 on the CPU, 64 on a GPU.")
    parser.add_argument("--rounds", type=int, default=5, help="Rounds in turns. Default: 5.")
    options = parser.parse_args()
    network = PRESETS[options.preset]()

    reference = published()
    million, weights = reference.parameters / 1e6, reference.weight_operations / 1e9
    print(
        f"published network: {million:.2f} M parameters, {weights:.2f} G for a forward pass "
        f"({weights + reference.attention_operations / 1e9:.1f} G with attention products); "
        f"the paper prints {PAPER_MILLION_PARAMETERS} M and {PAPER_GIGA_OPERATIONS} G"
    )
    if options.device == "cuda":
        on_gpu(network, options.batch or 64, options.rounds)
    else:
        on_cpu(network, options.batch or 4, options.rounds)


if __name__ == "__main__":
    main()

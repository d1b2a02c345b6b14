"""One pretraining step against the published pass structure, and against what the machine can multiply.

    python benchmarks/pretraining_step.py                # base, batch 4, on the CPU
    python benchmarks/pretraining_step.py --preset tiny  # seconds, to see that it runs
    python benchmarks/pretraining_step.py --device cuda  # batch 64 in bf16, compiled and not

A step is forward, backward, clipping, optimizer and teacher, after distillation has begun, with the terms of
the paper (our full reconstruction is left out). The other contender, `Straightforward`, computes the same
losses of the same rows by the published passes: for each sample the student encodes 5 times and decodes 6
times, the teacher 5 and 2; one pass after the other, attention matrices written out, nothing shared.

Contenders and a 2048 x 2048 matrix product take turns, so that a busy machine slows all; ratios are of
medians. The script fails if losses differ, if a contender makes other passes than these, or if `base` misses
a goal: 1.15 times faster, 75 % of the machine's rate of matrix products.
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
TERMS = ObjectiveConfig.corrected(full_weight=0.0)  # Eq. 13 and nothing else
STEP = TERMS.total_steps // 2  # distillation has begun
GOAL_SPEED, GOAL_RATE, GOAL_DIFFERENCE = 1.15, 0.75, 1e-6
PASSES = "student encodes", "student decodes", "teacher encodes", "teacher decodes"
GEMM = 2048
PAPER_HOURS, PAPER_BATCH, PAPER_STEPS = 405, 256, 200_000  # A100-hours (M-20)


class EagerAttention(nn.Module):
    """The same attention with its matrix written out."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads, self.qkv, self.out = attention.num_heads, attention.qkv, attention.out

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(tokens), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        query, key, value = qkv
        weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        return self.out(rearrange(weights @ value, "b h l d -> b l (h d)"))


class Straightforward(nn.Module):
    """The losses of `Objective` by the published passes.

    A row's second swap is its partner's first and is computed again; the mean of the two, which is either,
    lets both into the gradient. The teacher decodes swaps of its own, as the published one does: while it
    equals the student, in the first step, they are the student's.
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

        # Distillation: both volumes are decoded again, encoded, and compared with the teacher's.
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

        # Contrast of volumes and swaps, by student and teacher.
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
        for taught, learnt in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            taught.mul_(decay).add_(learnt, alpha=1 - decay)

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


def a_batch(network: MeDUETConfig, num_volumes: int, device: str = "cpu") -> Batch:
    """Random latents of two domains, with the pairs and masks of a step."""
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


def passes_of(contender: nn.Module, batch: Batch) -> tuple[int, ...]:
    """Encodes and decodes of student and teacher, for each sample."""
    samples = Counter()
    networks = [getattr(contender, owner) for owner in ("student", "teacher")]
    parts = [part for network in networks for part in (network.encoder, network.decoder)]
    hooks = [
        part.register_forward_pre_hook(lambda _, inputs, name=name: samples.update({name: len(inputs[0])}))
        for name, part in zip(PASSES, parts, strict=True)
    ]
    with torch.no_grad():
        contender(batch, STEP)
    for hook in hooks:
        hook.remove()
    return tuple(samples[name] // len(batch["latent"]) for name in PASSES)


def losses_and_gradients(contender: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    losses = contender(batch, STEP)
    losses["total"].backward()
    gradients = {
        name.replace("attention.", ""): parameter.grad.clone()
        for name, parameter in contender.named_parameters()
        if parameter.grad is not None
    }
    contender.zero_grad(set_to_none=True)
    return losses, gradients


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Over all tensors that both have, relative to each one's largest number."""
    return max(
        float((value - theirs[name]).detach().abs().max() / theirs[name].abs().max().clamp(min=1e-12))
        for name, value in ours.items()
        if name in theirs
    )


def step_of(contender: nn.Module, batch: Batch) -> Callable[[], None]:
    optimizer = adamw(contender, learning_rate=1e-4, weight_decay=1e-2, betas=(0.9, 0.95))

    def take() -> None:
        with torch.autocast(batch["latent"].device.type, torch.bfloat16, enabled=batch["latent"].is_cuda):
            losses = contender(batch, STEP)
        losses["total"].backward()
        nn.utils.clip_grad_norm_(contender.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        contender.finish_step(STEP)

    return take


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_product(device: str = "cpu") -> tuple[Callable[[], Tensor], float]:
    """A matrix product, long enough to time, and its operations in 10^9."""
    size = GEMM if device == "cpu" else 8192
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    return lambda: left @ right, 2 * size**3 / 1e9


def check_equal(objective: Objective, straightforward: Straightforward, batch: Batch) -> None:
    """Same losses, same gradients, fewest passes.

    Raises:
        SystemExit: they are not.
    """
    expected = {"ours": STEPS["ours, published terms"], "straightforward": STEPS["published passes"]}
    for name, contender in (("ours", objective), ("straightforward", straightforward)):
        passes = passes_of(contender, batch)
        print(f"{name:>16}: " + ", ".join(f"{n} {word}" for n, word in zip(passes, PASSES, strict=True)))
        if passes != expected[name]:
            raise SystemExit(f"{name}: expected {expected[name]} passes for each sample")
    ours, our_gradients = losses_and_gradients(objective, batch)
    theirs, their_gradients = losses_and_gradients(straightforward, batch)
    losses, gradients = (
        largest_difference(ours, theirs),
        largest_difference(our_gradients, their_gradients),
    )
    print(f"largest relative difference of a loss {losses:.1e}, of a gradient {gradients:.1e}")
    if losses > GOAL_DIFFERENCE:
        raise SystemExit(f"losses differ by more than {GOAL_DIFFERENCE}")


def on_cpu(network: MeDUETConfig, num_volumes: int, rounds: int) -> None:
    torch.manual_seed(0)
    batch = a_batch(network, num_volumes)
    objective = Objective(network, TERMS)
    straightforward = Straightforward(objective)
    check_equal(objective, straightforward, batch)

    product, product_giga = matrix_product()
    contenders = {
        "straightforward": step_of(straightforward, batch),
        "ours": step_of(objective, batch),
        "matrix product": product,
    }
    product()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            # Products before and after each step, for the machine's rate drifts.
            taken = [seconds(work) for _ in range(1 if name != "matrix product" else 5)]
            times[name] += taken if number else []  # the first round warms up
    medians = {name: statistics.median(each) for name, each in times.items()}
    rate = product_giga / medians["matrix product"]
    print(f"\nbatch {num_volumes}, {torch.get_num_threads()} threads, fp32, medians of {rounds} rounds")
    print(f"{'matrix product':>16}: {rate:.0f} GFLOP/s")
    shares = {}
    for name, passes in (("straightforward", "published passes"), ("ours", "ours, published terms")):
        giga = num_volumes * giga_per_sample(STEPS[passes], network)
        shares[name] = giga / medians[name] / rate
        print(f"{name:>16}: {medians[name]:.2f} s, {giga:.0f} GFLOP, {shares[name]:.0%} of that rate")
    speed = medians["straightforward"] / medians["ours"]
    print(f"ours is {speed:.2f} times faster (goal {GOAL_SPEED})")
    if network == MeDUETConfig.base() and (speed < GOAL_SPEED or shares["ours"] < GOAL_RATE):
        raise SystemExit(f"goals: {GOAL_SPEED} times faster, {GOAL_RATE:.0%} of the rate of matrix products")


def on_gpu(network: MeDUETConfig, num_volumes: int, rounds: int) -> None:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    batch = a_batch(network, num_volumes, "cuda")
    giga = num_volumes * giga_per_sample(STEPS["ours, published terms"], network)
    product, product_giga = matrix_product("cuda")
    for compiled in (False, True):
        objective = Objective(network, TERMS).to("cuda")
        take = step_of(objective, batch)
        if compiled:
            objective.compile()
        for _ in range(3):
            take()
            product()
        torch.cuda.reset_peak_memory_stats()
        pairs = [(seconds(take, "cuda"), seconds(product, "cuda")) for _ in range(rounds)]
        step, alone = (statistics.median(column) for column in zip(*pairs, strict=True))
        rate, hours = product_giga / alone, PAPER_STEPS * PAPER_BATCH / num_volumes * step / 3600
        print(
            f"{'compiled' if compiled else 'not compiled':>14}: {step:.3f} s a step of {num_volumes}, "
            f"{num_volumes / step:.0f} samples/s, {giga / step / rate:.0%} of {rate / 1e3:.0f} TFLOP/s "
            f"(bf16 matrix product), peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, "
            f"{hours:.0f} hours for {PAPER_STEPS} steps of {PAPER_BATCH} (paper: {PAPER_HOURS} A100-hours)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, help="default: 4 on the CPU, 64 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    network = PRESETS[options.preset]()

    reference = published()
    million, weights = reference.parameters / 1e6, reference.weight_operations / 1e9
    print(
        f"published network: {million:.2f} M parameters, {weights:.2f} G a forward "
        f"({weights + reference.attention_operations / 1e9:.1f} G with attention products); "
        f"the paper prints {PAPER_MILLION_PARAMETERS} M and {PAPER_GIGA_OPERATIONS} G"
    )
    if options.device == "cuda":
        on_gpu(network, options.batch or 64, options.rounds)
    else:
        on_cpu(network, options.batch or 4, options.rounds)


if __name__ == "__main__":
    main()

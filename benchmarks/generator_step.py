"""Measure one guided step of a generator, compared with a direct implementation and with a matrix product.

    python benchmarks/generator_step.py                # SiT-B/4 at 2048 tokens, on the CPU
    python benchmarks/generator_step.py --preset tiny  # takes seconds, for a test of the script
    python benchmarks/generator_step.py --busy         # one thread, processor time, for a busy machine
    python benchmarks/generator_step.py --device cuda  # bf16, compiled and not compiled, and a whole sample

A guided step takes three evaluations: with both factors, without content, without style. `DirectStep` runs
three whole forward passes, computes the modulation each time, and stores its attention matrices. Our step
computes the modulation once for a whole schedule, before the first step, and uses fused attention. A third
method uses 8-bit integers in the linear layers of the blocks. All weights are random, also the modulation and
the last layer, which are zero in a new generator: otherwise every prediction would be 0, and a comparison
would say nothing.

The methods and a matrix product take turns; the ratios are ratios of medians. The script fails if our step
differs from the direct one by more than 1e-5 of the largest number, or if `base` misses a goal: 1.5 times
faster, 65 % of the rate of matrix products, 2 times faster with 8-bit integers.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from pretraining_step import GEMM, EagerAttention, matrix_product
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from napari_meduet.core.synthesis.acceleration import accelerated
from napari_meduet.core.synthesis.generator import Conditions, Generator, GeneratorConfig
from napari_meduet.core.synthesis.guidance import dual_guidance
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity, combined_conditions
from napari_meduet.core.synthesis.interpolant import velocity_of_data
from napari_meduet.core.synthesis.samplers import heun, time_grid
from napari_meduet.core.transformer import Block
from napari_meduet.models.loading import load_model

PRESETS = {"base": GeneratorConfig.base, "small": GeneratorConfig.small, "tiny": GeneratorConfig.tiny}
GUIDANCE = Guidance(content_weight=3.0, style_weight=3.0)  # the weights of the paper
NAMES = GUIDANCE.combinations
TIME = 0.5
STEPS = 12  # Heun steps of a whole sample
GOAL_SPEED, GOAL_RATE, GOAL_INT8, GOAL_DIFFERENCE = 1.5, 0.65, 2.0, 1e-5


class DirectStep(nn.Module):
    """Three whole forward passes with the same weights, in sequence, with stored attention matrices."""

    def __init__(self, generator: Generator, conditions: Conditions) -> None:
        super().__init__()
        shared = {id(parameter): parameter for parameter in generator.parameters()}
        self.generator = copy.deepcopy(generator, shared)
        for module in list(self.generator.modules()):
            if isinstance(module, Block):
                module.attention = EagerAttention(module.attention)
        self.conditions = [combined_conditions(conditions, name) for name in NAMES]

    @torch.no_grad()
    def forward(self, x: Tensor, time: float) -> Tensor:
        times = x.new_full((len(x),), time)
        predicted = [self.generator(x, times, each) for each in self.conditions]
        guided = dual_guidance(*predicted, GUIDANCE.content_weight, GUIDANCE.style_weight)
        is_data = self.generator.config.prediction == "data"
        return velocity_of_data(x, guided, times) if is_data else guided


def random_generator(config: GeneratorConfig, device: str = "cpu") -> Generator:
    """Return a generator whose weights are all random."""
    torch.manual_seed(0)
    generator = Generator(config)
    for parameter in generator.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return generator.to(device).eval().requires_grad_(False)


def random_inputs(config: GeneratorConfig, device: str = "cpu") -> tuple[Tensor, Conditions]:
    """Return noise and random conditions for it."""
    random = torch.Generator().manual_seed(1)
    kept = torch.zeros(1, dtype=torch.bool, device=device)
    x, content, style, spatial_content = (
        torch.randn(shape, generator=random).to(device)
        for shape in (
            (1, *config.latent_shape),
            (1, config.content_width),
            (1, config.style_width),
            (1, config.num_tokens, config.content_width),
        )
    )
    spatial = spatial_content if config.spatial_content else None
    return x, Conditions(
        content=content, style=style, drops_content=kept, drops_style=kept, spatial_content=spatial
    )


def giga_per_evaluation(config: GeneratorConfig) -> tuple[float, float]:
    """Return the GFLOP of one prediction, and the fraction of them in attention products."""
    with torch.device("meta"):
        generator, latent = Generator(config), torch.empty(1, *config.latent_shape)
        modulation = torch.empty(1, config.num_modulations, config.width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        generator.predict(latent, modulation)
    by_kind = counter.get_flop_counts()["Global"]
    attention = sum(
        count for kind, count in by_kind.items() if "bmm" in str(kind) or "attention" in str(kind)
    )
    return counter.get_total_flops() / 1e9, attention / counter.get_total_flops()


def difference(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Return the largest difference relative to the largest number, and the rms error relative to the rms."""
    error = ours.double() - theirs.double()
    return float(error.abs().max() / theirs.abs().max()), float(error.norm() / theirs.double().norm())


def on_cpu(config: GeneratorConfig, rounds: int, is_busy: bool) -> None:
    clock = time.process_time if is_busy else time.perf_counter
    generator = random_generator(config)
    x, conditions = random_inputs(config)
    giga, attention = giga_per_evaluation(config)
    million = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
    print(f"{million:.1f} M parameters, {config.num_tokens} tokens")
    print(f"{giga:.0f} GFLOP for each evaluation, {attention:.0%} of them in attention products")

    def guided(network: Generator) -> GuidedVelocity:
        return GuidedVelocity(network, conditions, GUIDANCE, [TIME])

    start = clock()
    ours = guided(generator)
    print(f"modulation for three combinations and one time, once for a schedule: {clock() - start:.2f} s")
    int8 = guided(accelerated(generator, "int8"))
    steps: dict[str, Callable[[Tensor, float], Tensor]] = {
        "direct": DirectStep(generator, conditions),
        "ours": ours,
        "ours, int8": int8,
    }
    product, product_giga = matrix_product()
    product()
    times: dict[str, list[float]] = {name: [] for name in steps}
    products, outputs = [], {}
    generator.predict(x, generator.time_modulation(x.new_ones(1)))  # warm-up
    for _ in range(rounds):
        for name, step in steps.items():
            products += [
                _spent(product, clock) for _ in range(3)
            ]  # between the steps, because the rate drifts
            times[name].append(
                _spent(lambda step=step, name=name: outputs.update({name: step(x, TIME)}), clock)
            )
            print(f"  {name}: {times[name][-1]:.2f} s", flush=True)
    report(
        config,
        3 * giga,
        {name: statistics.median(each) for name, each in times.items()},
        outputs,
        product_giga / statistics.median(products),
        "processor time" if is_busy else "wall time",
        rounds,
    )


def report(
    config: GeneratorConfig,
    giga: float,
    medians: dict[str, float],
    outputs: dict[str, Tensor],
    rate: float,
    clock: str,
    rounds: int,
) -> None:
    """Print a table for docs/benchmarks.md.

    Raises:
        SystemExit: the outputs differ, or `base` misses a goal.
    """
    print(
        f"\nThreads: {torch.get_num_threads()}; {clock}, medians of {rounds} interleaved rounds; "
        f"matrix product of {GEMM}: {rate:.0f} GFLOP/s\n"
    )
    print(
        "| guided step | seconds | GFLOP/s | fraction of that rate | times faster | largest difference "
        "| rms error |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, seconds in medians.items():
        largest, mean = difference(outputs[name], outputs["direct"])
        print(
            f"| {name} | {seconds:.2f} | {giga / seconds:.0f} | {giga / seconds / rate:.0%} | "
            f"{medians['direct'] / seconds:.2f} | {largest:.1e} | {mean:.1e} |"
        )
    speed, int8 = (medians["direct"] / medians[name] for name in ("ours", "ours, int8"))
    print(f"\nint8 is {medians['ours'] / medians['ours, int8']:.2f} times faster than our step in float32")
    largest, _ = difference(outputs["ours"], outputs["direct"])
    if largest > GOAL_DIFFERENCE:
        raise SystemExit(f"The outputs differ by {largest:.1e}; the limit is {GOAL_DIFFERENCE}.")
    reached = speed >= GOAL_SPEED and giga / medians["ours"] / rate >= GOAL_RATE and int8 >= GOAL_INT8
    if config == GeneratorConfig.base() and not reached:
        raise SystemExit(
            f"Goal missed: {GOAL_SPEED} times faster, {GOAL_RATE:.0%} of the rate of matrix products, "
            f"{GOAL_INT8} times faster in int8."
        )


def on_gpu(config: GeneratorConfig, rounds: int) -> None:
    """Print the step time, the fraction of the rate of bf16 products, and the time of a whole sample."""
    generator = random_generator(config, "cuda")
    x, conditions = random_inputs(config, "cuda")
    giga, _ = giga_per_evaluation(config)
    product, product_giga = matrix_product("cuda")
    reference = DirectStep(generator, conditions)(x, TIME)
    grid = time_grid(STEPS)
    decode = load_model(None, device=torch.device("cuda")).tokenizer.decode
    for compiles in (False, True):
        network = accelerated(generator, "bfloat16", compiles=compiles)
        velocity = GuidedVelocity(network, conditions, GUIDANCE, [*grid, TIME])
        for _ in range(3):
            largest, mean = difference(velocity(x, TIME), reference)
            product()
        step = statistics.median(_spent(lambda v=velocity: v(x, TIME), _gpu_clock) for _ in range(rounds))
        rate = product_giga / statistics.median(_spent(product, _gpu_clock) for _ in range(rounds))
        torch.cuda.reset_peak_memory_stats()
        latents: list[Tensor] = []
        sampling = _spent(lambda v=velocity, o=latents: o.extend(w.x for w in heun(v, x, grid)), _gpu_clock)
        decoding = _spent(lambda o=latents: decode(o[-1]), _gpu_clock)
        print(
            f"{'compiled' if compiles else 'not compiled':>14}: guided step {step * 1e3:.1f} ms, "
            f"{3 * giga / step / rate:.0%} of {rate / 1e3:.0f} TFLOP/s (bf16 matrix product); differs from "
            f"float32 by {largest:.1e}, rms {mean:.1e}; a sample of {STEPS} Heun steps {sampling:.2f} s "
            f"and {decoding:.2f} s to decode, peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        )


def _spent(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--preset", choices=PRESETS, default="base", help="Size of the generator. Default: base."
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="Device. Default: cpu.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds in turns. Default: 3.")
    parser.add_argument("--busy", action="store_true", help="Use one thread and measure processor time.")
    options = parser.parse_args()
    config = PRESETS[options.preset]()
    if options.busy:
        torch.set_num_threads(1)
    if options.device == "cuda":
        on_gpu(config, max(options.rounds, 10))
    else:
        on_cpu(config, options.rounds, options.busy)


if __name__ == "__main__":
    main()

"""Two processes with half the batch each learn what one process learns with the whole.

    python benchmarks/two_processes.py            # `tiny`, 50 steps: a quarter of an hour on two CPU cores

Prints the largest relative difference of the total loss over the steps, for DDP and for FSDP, and ends with
an error where it exceeds 1e-5. Pairs, masks and latents of a step are the same however many processes share
it, because the loader draws them all. Three terms depend on more than one row, and what is done about each:

- domain loss: a mean over labelled volumes. It is divided by the share of labelled ones in the whole batch.
- contrast of scope `global`: keys are gathered from all processes, so it is that of the whole batch.
- contrast of scope `batch` (the default) compares the volumes of one process, or of one part of an
  accumulated gradient. With half the batch it is another loss, by definition; so this run asks for `global`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

TOLERANCE = 1e-5  # relative, of every step's total loss


def train(strategy: Literal["ddp", "fsdp"], steps: int, result: Path) -> None:
    """One process of a run; the first writes the losses."""
    import torch

    from meduet_training.data.caches.latent_windows import LatentWindows
    from meduet_training.data.sources.windows import WindowSource
    from meduet_training.engine.callbacks import LossCallback
    from meduet_training.engine.trainer import Trainer
    from meduet_training.runtime.fabric import Hardware, launch_fabric
    from meduet_training.tasks.pretraining.linear_start import init_weights
    from meduet_training.tasks.pretraining.presets import tiny, with_domains_of

    generator = torch.Generator().manual_seed(0)
    anatomies = torch.randn(16, 4, 6, 6, 6, generator=generator)
    mean = torch.nn.functional.interpolate(anatomies, size=(24, 24, 24), mode="trilinear").half()
    rows = torch.arange(16)
    windows = LatentWindows(
        mean=mean,
        log_variance=torch.full_like(mean, -3.0),
        coverage=torch.ones(16, 216),
        anatomy=rows,
        appearance=100 * rows,
        domain=rows % 4 - (rows == 3).long() * 4,  # three domains, four, and one volume of none
        domains=("a", "b", "c", "d"),
        tokenizer_sha256="0",
    )
    training = tiny()
    objective = replace(
        training.objective, total_steps=steps, scope="global", distillation_start=0.2, pairing="cross_domain"
    )
    training = replace(training, objective=objective)
    hardware = Hardware(device="cpu", precision="fp32", strategy=strategy, workers=0)
    fabric = launch_fabric(hardware)
    source = WindowSource(windows, training.seed)
    losses: list[float] = []
    watch = LossCallback(lambda step, found: losses.append(float(found["total"])))
    with tempfile.TemporaryDirectory() as folder:
        config = with_domains_of(training, source)
        Trainer(
            fabric,
            config,
            source,
            Path(folder),
            hardware=hardware,
            callback=watch,
            init_weights=partial(init_weights, config=config, source=source),
        ).fit()
    if fabric.is_global_zero:
        result.write_text(json.dumps(losses))


def losses_of(strategy: str, processes: int, steps: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "losses.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={processes}", __file__, "--steps", str(steps)]
        command += ["--strategy", strategy, "--result", str(result)]
        # One thread each: a matrix product over more threads is summed in another order.
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(result.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--strategy", default="")
    parser.add_argument("--result", type=Path)
    given = parser.parse_args()
    if given.result:
        return train(given.strategy, given.steps, given.result)
    alone = losses_of("ddp", 1, given.steps)
    print(f"one process: loss {alone[0]:.6f} at first, {alone[-1]:.6f} after {len(alone)} steps")
    worst = 0.0
    for strategy in ("ddp", "fsdp"):
        together = losses_of(strategy, 2, given.steps)
        difference = max(abs(a - b) / abs(a) for a, b in zip(alone, together, strict=True))
        print(f"two processes, {strategy}: largest relative difference {difference:.1e}")
        worst = max(worst, difference)
    return sys.exit(f"more than {TOLERANCE}" if worst > TOLERANCE else 0)


if __name__ == "__main__":
    main()

"""Check that two processes with half of the batch each learn the same as one process with the whole batch.

    python benchmarks/two_processes.py  # preset `tiny`, 50 steps; takes 15 minutes on two CPU cores

The script prints the largest relative difference of the total loss over the steps, for DDP and for FSDP, and
fails if it exceeds 1e-5. The loader draws pairs, masks and latents for all processes together, so they do not
depend on the number of processes. Three terms depend on more than one row:

- The domain loss is a mean over labelled volumes. It is divided by the fraction of labelled volumes in the
  whole batch.
- The contrast of scope `global` gathers the keys of all processes, so it is that of the whole batch.
- The contrast of scope `batch` (the default) compares the volumes of one process, or of one part of an
  accumulated gradient. With half of the batch it is another loss. This script therefore uses `global`.
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

TOLERANCE = 1e-5  # relative difference of the total loss of each step


def train(strategy: Literal["ddp", "fsdp"], steps: int, result: Path) -> None:
    """Train in one process of a run. Rank 0 writes the losses."""
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
        domain=rows % 4 - (rows == 3).long() * 4,  # four domains, and one volume without a domain
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
    callback = LossCallback(lambda step, found: losses.append(float(found["total"])))
    with tempfile.TemporaryDirectory() as folder:
        config = with_domains_of(training, source)
        Trainer(
            fabric,
            config,
            source,
            Path(folder),
            hardware=hardware,
            callback=callback,
            init_weights=partial(init_weights, config=config, source=source),
        ).fit()
    if fabric.is_global_zero:
        result.write_text(json.dumps(losses))


def losses_of(strategy: str, processes: int, steps: int) -> list[float]:
    """Run a training with torchrun, and return the total loss of each step."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "losses.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={processes}", __file__, "--steps", str(steps)]
        command += ["--strategy", strategy, "--result", str(result)]
        # One thread for each process, because more threads sum a matrix product in another order.
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(result.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=50, help="Training steps. Default: 50.")
    parser.add_argument("--strategy", default="", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.result:
        train(options.strategy, options.steps, options.result)
        return
    alone = losses_of("ddp", 1, options.steps)
    print(f"one process: first loss {alone[0]:.6f}, loss after {len(alone)} steps {alone[-1]:.6f}")
    worst = 0.0
    for strategy in ("ddp", "fsdp"):
        together = losses_of(strategy, 2, options.steps)
        difference = max(abs(a - b) / abs(a) for a, b in zip(alone, together, strict=True))
        print(f"two processes, {strategy}: largest relative difference {difference:.1e}")
        worst = max(worst, difference)
    if worst > TOLERANCE:
        sys.exit(f"The losses differ by {worst:.1e}; the limit is {TOLERANCE}.")


if __name__ == "__main__":
    main()

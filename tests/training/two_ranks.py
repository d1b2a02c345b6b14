"""The program of each of two processes for engine/test_engine.py: `python two_ranks.py FOLDER`.

With both strategies each process trains on half of the batch; a second run has a step that is not finite on
one rank only.
"""

import json
import sys
from pathlib import Path

from engine import Losses, Poisoned, engine_training, engine_windows

from meduet_training.data.sources.windows import WindowSource
from meduet_training.engine.config import TrainerOptions
from meduet_training.engine.trainer import Trainer
from meduet_training.runtime.fabric import Hardware, launch_fabric
from meduet_training.tasks.pretraining.presets import with_domains_of


def main(folder: Path) -> None:
    windows, training = engine_windows(), engine_training()
    for strategy in ("ddp", "fsdp"):
        hardware = Hardware(device="cpu", strategy=strategy, workers=0, timeout_s=60)
        fabric = launch_fabric(hardware)
        for kind, source in (
            ("clean", WindowSource(windows, training.seed)),
            ("poisoned", Poisoned(windows, training.seed, step=2, row=1)),
        ):
            watch, recipe = Losses(), with_domains_of(training, source)
            Trainer(
                fabric, recipe, source, folder / f"{strategy}-{kind}",
                hardware=hardware, options=TrainerOptions(skips=1), callback=watch, log=lambda sentence: None,
            ).fit()  # fmt: skip
            if fabric.is_global_zero:
                told = {"losses": watch.losses, "skipped": watch.skipped, "seen": watch.seen}
                (folder / f"{strategy}-{kind}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

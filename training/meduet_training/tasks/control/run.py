"""Train a ControlNet for the generator of a model (M-40). `task.py` reads the configuration.

`../train.py` trains, like every task. This file reads masks, opens factors, and sets the generator.
"""

from dataclasses import replace
from pathlib import Path
from typing import cast

from lightning_fabric import Fabric

from meduet_training.data.caches.factors import FactorEntry, factor_key
from meduet_training.data.caches.masks import MaskEntry, cached_mask
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.labels.names import label_names
from meduet_training.data.labels.task import numbered
from meduet_training.data.sources.control import ControlSource
from meduet_training.runtime.fabric import launch_fabric, refuse_fsdp, run_on_rank_zero
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.control.config import ControlRun
from meduet_training.tasks.factors import cached_factors
from meduet_training.tasks.train import check_batch, train_task
from napari_meduet.core.synthesis.control_objective import ControlConfig, ControlObjective
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model


def run_control(run: ControlRun, folder: Path) -> None:
    """Train as configured, or resume the run in the folder. All processes of a job call this together.

    Raises:
        InputError: the run is impossible as configured, or the folder belongs to another run.
        Stopped: a signal stopped the run; the same configuration resumes it.
        TrainingFailed: the training cannot continue.
    """
    with report_on_rank_zero():
        refuse_fsdp(run.hardware, "A ControlNet")
        model = load_model(run.data.model, "cpu")
        generator = model.generator
        if generator is None:
            raise InputError(
                f"{run.data.model.name}: this model has no generator to steer; train one first "
                "(meduet-train generator)."
            )
        scans = [scan for scan in trainable(read_cohort(run.data.scans)) if scan.labels_path is not None]
        if not scans:
            raise InputError(
                "None of the scans to train on has labels: the list needs seg_path (index.json) or labels "
                "(a manifest)."
            )
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        factors = cached_factors(fabric, run.data.model, scans, run.data.cache_dir, "labelled")
        pairs = _with_masks(fabric, model, scans, factors, run, generator.config.grid)
        classes = numbered([pair for _, mask in pairs for pair in zip(mask.names, mask.labels, strict=True)])
        if len(classes) == 1:
            raise InputError("The labels of these scans are 0 everywhere, so there is nothing to follow.")
        objective = replace(
            cast(ControlConfig, run.training.objective),
            labels=tuple(classes.values()),
            names=tuple(classes),
        )
        training = replace(
            run.training, network=generator.config, objective=objective, model_sha256=model.sha256
        )
        entries, masks = zip(*pairs, strict=True)
        source = ControlSource(entries, masks, objective.names, generator.config.grid, training.seed)
        check_batch(fabric, run, training, source)
    if fabric.is_global_zero:
        numbers = ", ".join(f"{label} {name}" for name, label in classes.items())
        print_to_stderr(f"Classes of the mask, by the numbers that `meduet synthesize` takes: {numbers}.")
    train_task(
        fabric,
        run,
        training,
        source,
        folder,
        tokenizer=model.tokenizer,
        init_weights=lambda objective: cast(ControlObjective, objective).load_generator(generator),
    )


def _with_masks(
    fabric: Fabric,
    model: Model,
    scans: list[Scan],
    factors: list[FactorEntry],
    run: ControlRun,
    grid: tuple[int, int, int],
) -> list[tuple[FactorEntry, MaskEntry]]:
    """Return the scans that are as large as a crop, with their masks. Rank zero makes masks that are missing.

    Raises:
        InputError: no scan is large enough.
    """
    names = label_names(run.data.scans, scans)
    large = {
        entry.key: entry
        for entry in factors
        if all(have >= need for have, need in zip(entry.grid, grid, strict=True))
    }
    if not large:
        raise InputError(
            f"No labelled scan is as large as a crop of the generator, {' x '.join(map(str, grid))} tokens; "
            "give larger scans."
        )

    def opened() -> list[tuple[FactorEntry, MaskEntry]]:
        return [
            (entry, cached_mask(model, scan, entry, names.get(cast(Path, scan.labels_path), {})))
            for scan in scans
            if (entry := large.get(factor_key(scan, model)))
        ]

    run_on_rank_zero(fabric, lambda: len(opened()))
    return opened()

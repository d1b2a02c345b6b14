"""Train the embedded model from a folder of scans: tokenizer, latent windows, pretraining, model folder.

Every stage stores its result in a cache directory and is skipped if the result exists, so a second start
continues after the last finished stage.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from meduet_training.data.caches.prepared import load_prepared, prepare_cohort
from meduet_training.data.caches.windows import cached_windows
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.sources.windows import WindowSource
from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.engine.callbacks import LossCallback
from meduet_training.engine.resume import load_trained
from meduet_training.engine.trainer import Trainer
from meduet_training.runtime.progress import training_progress
from meduet_training.runtime.signals import stop_signals
from meduet_training.tasks.pretraining.demo_recipe import DemoRecipe
from meduet_training.tasks.pretraining.export import write_model
from meduet_training.tasks.pretraining.linear_start import init_weights
from meduet_training.tasks.pretraining.presets import with_domains_of
from meduet_training.tasks.tokenizer.run import run_tokenizer_training
from napari_meduet.models.card import ModelCard

DESCRIPTION = (
    "A small research model, trained in two hours on a few public scans, most sites with one patient. "
    "It shows what the software does; it is no medical device and must not be used for diagnosis."
)


def make_demo_model(fabric: Fabric, data: Path, cache: Path, folder: Path, recipe: DemoRecipe) -> ModelCard:
    """Run all stages, write the model folder, and return its card; `meduet-train metrics` measures it."""
    scans = trainable(read_cohort(data))
    prepared = prepare_cohort(scans, cache / "prepared")
    tokenizer_folder = cache / "tokenizer"
    if not (tokenizer_folder / "done").exists():
        run_tokenizer_training(
            fabric, [load_prepared(path) for path in prepared], recipe.tokenizer, tokenizer_folder
        )
        (tokenizer_folder / "done").touch()
    tokenizer, spec = load_tokenizer(tokenizer_folder)
    windows = cached_windows(
        prepared, tokenizer, spec, cache, groups=recipe.groups, seed=recipe.seed, device=fabric.device
    )
    source = WindowSource(windows, recipe.pretraining.seed)
    pretraining, run_folder = with_domains_of(recipe.pretraining, source), cache / "pretraining"
    total = pretraining.objective.total_steps
    with training_progress("Pretraining", total, run_folder) as on_step, stop_signals() as is_stopped:
        Trainer(
            fabric,
            pretraining,
            source,
            run_folder,
            callback=LossCallback(on_step),
            init_weights=partial(init_weights, config=pretraining, source=source),
            should_stop=is_stopped,
        ).fit()
    return write_model(
        folder,
        name="demo",
        description=DESCRIPTION,
        tokenizer=tokenizer,
        spec=spec,
        trained=load_trained(run_folder),
        scans=scans,
        training={"tokenizer": asdict(recipe.tokenizer), "pretraining": asdict(recipe.pretraining)},
        seeds={
            "tokenizer": recipe.tokenizer.seed,
            "windows": recipe.seed,
            "pretraining": recipe.pretraining.seed,
        },
        overwrite=True,
    )

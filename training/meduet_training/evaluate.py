"""`meduet-evaluate`: what a network's factors know, and the report of a run.

Torch is imported inside the commands, so that `--help` opens at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What a network's factors know, and the report of a run.",
)


class Split(StrEnum):
    test = "test"
    train = "train"
    all = "all"


@app.command()
def factors(
    network: Annotated[
        Path, typer.Argument(help="A run's folder, one checkpoint of it, or a model that was exported.")
    ],
    data: Annotated[Path, typer.Option(help="A manifest, a folder with an index.json, or a latent cache.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figures and pictures.")],
    split: Annotated[Split, typer.Option(help="Which scans of a manifest.")] = Split.test,
    crops: Annotated[int, typer.Option(min=8, help="How many crops of a cache.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of folds, intervals, maps and crops.")] = 2025,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an analysis.")] = False,
) -> None:
    """Can the domain be read from style and content? Probes, silhouettes, t-SNE maps."""
    from meduet_training.evaluation.extractors import open_extractor
    from meduet_training.evaluation.factor_analysis import FACTORS_JSON, analyse_factors, write_factors
    from meduet_training.evaluation.factor_samples import samples_of
    from meduet_training.machinery.folders import check_writable
    from meduet_training.machinery.messages import plain_errors
    from meduet_training.reporting.factor_pictures import write_factor_pictures
    from napari_meduet.errors import InputError

    with plain_errors():
        if (output / FACTORS_JSON).exists() and not overwrite:
            raise InputError(f"{output.name}: holds an analysis; give another folder, or --overwrite.")
        extractor = open_extractor(network, device)
        check_writable(output)
        samples = samples_of(
            extractor, data, split.value, crops, seed, lambda text: typer.echo(text, err=True)
        )
        analysis = analyse_factors(samples, seed)
        write_factors(analysis, output)
        write_factor_pictures(analysis, output)
        typer.echo(analysis.as_markdown())
        typer.echo(f"Wrote {output}.")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
) -> None:
    """Make a run's report.html anew from what lies in its folder."""
    from meduet_training.machinery.messages import plain_errors
    from meduet_training.reporting.run_report import write_report

    with plain_errors():
        typer.echo(f"Wrote {write_report(run_folder)}.")

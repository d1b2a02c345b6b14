"""`meduet-evaluate`: what a network's factors know, what a generator makes, and the report of a run.

Torch is imported inside the commands, so that `--help` opens at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EMBEDDED = Path("src/napari_meduet/models/demo")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What a network's factors know, what a generator makes, and the report of a run.",
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
def synthesis(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figures and pictures.")],
    data: Annotated[Path, typer.Option(help="A manifest, or a folder with an index.json; both splits.")],
    model: Annotated[Path, typer.Option(help="A model folder with a generator.")] = EMBEDDED,
    cache: Annotated[Path, typer.Option(help="Where factors of scans are kept.")] = Path("caches/factors"),
    count: Annotated[int, typer.Option("-n", min=8, help="How many crops, real and generated.")] = 64,
    sampler: Annotated[str, typer.Option(help="heun, multistep, euler or em; ddpm or ddim.")] = "multistep",
    steps: Annotated[int, typer.Option(min=1, help="Of the sampler.")] = 12,
    wc: Annotated[float, typer.Option(help="Weight of the content's guidance.")] = 1.0,
    ws: Annotated[float, typer.Option(help="Weight of the style's guidance.")] = 1.0,
    extractor: Annotated[
        Path | None, typer.Option(help="MedicalNet's ResNet-50 (.safetensors, .pth); else a pyramid.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of crops, noise and intervals.")] = 2025,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    document: Annotated[
        Path | None, typer.Option(help="A page with markers for the tables, such as docs/benchmarks.md.")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Put the figures on the model's card.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an evaluation.")] = False,
) -> None:
    """Is what a generator makes real, varied, new, and what was asked for?"""
    from meduet_training.evaluation.synthesis_evaluation import (
        SYNTHESIS_JSON,
        SynthesisQuestion,
        check_document,
        evaluate_synthesis,
        write_evaluation,
    )
    from meduet_training.machinery.folders import check_writable
    from meduet_training.machinery.messages import plain_errors
    from meduet_training.reporting.synthesis_pictures import write_synthesis_pictures
    from napari_meduet.errors import InputError
    from napari_meduet.pipelines.requests import SynthesisRequest

    with plain_errors():
        if (output / SYNTHESIS_JSON).exists() and not overwrite:
            raise InputError(f"{output.name}: holds an evaluation; give another folder, or --overwrite.")
        if document is not None:
            check_document(document)
        question = SynthesisQuestion(
            model=model,
            data=data,
            cache=cache,
            count=count,
            seed=seed,
            sampling=SynthesisRequest(
                sampler=sampler,  # type: ignore[arg-type]  # the request refuses what it is not
                steps=steps,
                content_weight=wc,
                style_weight=ws,
            ),
            extractor=extractor,
            device=device,
            document=document,
            on_card=card,
        )
        check_writable(output)
        found = evaluate_synthesis(question, lambda text: typer.echo(text, err=True), typer.echo)
        write_evaluation(found, question, output)
        write_synthesis_pictures(found, output)
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

"""`meduet-evaluate`: what factors know, what a generator makes, a segmenter and a classifier find; reports.

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
    help="What factors know, what a generator makes, what segmenters and classifiers find; reports of runs.",
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
    from meduet_training.evaluation.factors.analysis import FACTORS_JSON, analyse_factors, write_factors
    from meduet_training.evaluation.factors.extractors import open_extractor
    from meduet_training.evaluation.factors.samples import samples_of
    from meduet_training.reporting.factor_pictures import write_factor_pictures
    from meduet_training.runtime.folders import check_writable
    from meduet_training.runtime.messages import plain_errors
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
    from meduet_training.evaluation.sections import check_section
    from meduet_training.evaluation.synthesis.evaluate import (
        SECTION,
        SYNTHESIS_JSON,
        SynthesisQuestion,
        evaluate_synthesis,
        write_evaluation,
    )
    from meduet_training.reporting.synthesis_pictures import write_synthesis_pictures
    from meduet_training.runtime.folders import check_writable
    from meduet_training.runtime.messages import plain_errors
    from napari_meduet.errors import InputError
    from napari_meduet.pipelines.requests import SynthesisRequest

    with plain_errors():
        if (output / SYNTHESIS_JSON).exists() and not overwrite:
            raise InputError(f"{output.name}: holds an evaluation; give another folder, or --overwrite.")
        if document is not None:
            check_section(document, SECTION)
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
def segmentation(
    model: Annotated[Path, typer.Argument(help="A model folder with a segmenter.")],
    data: Annotated[
        Path, typer.Option(help="A manifest, or a folder of scans with labels; its test split judges.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figures and pictures.")],
    names: Annotated[
        Path | None, typer.Option(help="YAML that names the labels, where the list does not.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="What the segmenter was trained by: its data.classes join the truth's labels."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Another model with a segmenter; as often as you like.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Beside a threshold for lungs, and registered atlases.")
    ] = False,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Of NSD, in mm.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.")] = 2025,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    document: Annotated[
        Path | None, typer.Option(help="A page with markers for the tables, such as docs/benchmarks.md.")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Put the figures on the model's card.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an evaluation.")] = False,
) -> None:
    """How well are structures found, of patients never seen? Dice and NSD, beside what is simpler."""
    from meduet_training.evaluation.sections import check_section
    from meduet_training.evaluation.segmentation.evaluate import (
        SECTION,
        SEGMENTATION_JSON,
        SegmentationQuestion,
        evaluate_segmentation,
        put_on_card,
        write_evaluation,
    )
    from meduet_training.reporting.segmentation_pictures import write_segmentation_picture
    from meduet_training.runtime.folders import check_writable
    from meduet_training.runtime.messages import plain_errors
    from napari_meduet.errors import InputError

    with plain_errors():
        if (output / SEGMENTATION_JSON).exists() and not overwrite:
            raise InputError(f"{output.name}: holds an evaluation; give another folder, or --overwrite.")
        if document is not None:
            check_section(document, SECTION)
        question = SegmentationQuestion(
            model=model,
            data=data,
            names=names,
            config=config,
            against=tuple(against or ()),
            baselines=baselines,
            tolerance_mm=tolerance,
            seed=seed,
            device=device,
        )
        check_writable(output)
        found = evaluate_segmentation(
            question,
            lambda text: typer.echo(text, err=True),
            lambda segmented, task: write_segmentation_picture(segmented, task, output),
        )
        write_evaluation(found, output, document)
        if card:
            put_on_card(found, model)
        typer.echo(found.as_markdown())
        typer.echo(f"Wrote {output}.")


@app.command()
def classification(
    model: Annotated[Path, typer.Argument(help="A model folder with a classifier.")],
    data: Annotated[
        Path, typer.Option(help="A manifest, or a folder with an index.json; its test split judges.")
    ],
    target: Annotated[str, typer.Option(help="The column that says the class of each scan.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figures.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.")] = 2025,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    document: Annotated[
        Path | None, typer.Option(help="A page with markers for the tables, such as docs/benchmarks.md.")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Put the figures on the model's card.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an evaluation.")] = False,
) -> None:
    """Does a classifier tell scans of patients that it never saw? AUC and balanced accuracy."""
    from meduet_training.evaluation.classification import (
        CLASSIFICATION_JSON,
        SECTION,
        ClassificationQuestion,
        evaluate_classification,
        put_on_card,
        write_evaluation,
    )
    from meduet_training.evaluation.sections import check_section
    from meduet_training.runtime.folders import check_writable
    from meduet_training.runtime.messages import plain_errors
    from napari_meduet.errors import InputError

    with plain_errors():
        if (output / CLASSIFICATION_JSON).exists() and not overwrite:
            raise InputError(f"{output.name}: holds an evaluation; give another folder, or --overwrite.")
        if document is not None:
            check_section(document, SECTION)
        question = ClassificationQuestion(model=model, data=data, target=target, seed=seed, device=device)
        check_writable(output)
        found = evaluate_classification(question, lambda text: typer.echo(text, err=True))
        write_evaluation(found, output, document)
        if card:
            put_on_card(found, model)
        typer.echo(found.part.as_markdown())
        typer.echo(f"Wrote {output}.")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
) -> None:
    """Make a run's report.html anew from what lies in its folder."""
    from meduet_training.reporting.report import write_report
    from meduet_training.runtime.messages import plain_errors

    with plain_errors():
        typer.echo(f"Wrote {write_report(run_folder)}.")

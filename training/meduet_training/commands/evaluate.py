"""`meduet-evaluate`: metrics of factors, generators, segmenters and classifiers, and reports of runs.

Torch is imported inside the commands, so that `--help` opens at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from meduet_training.commands.options import (
    EMBEDDED_MODEL,
    DeviceOption,
    OverwriteOption,
    RunFolderArgument,
)
from meduet_training.evaluation.choices import SplitChoice
from napari_meduet.core.options import GUIDANCE_WEIGHT
from napari_meduet.core.synthesis.sampler_registry import SamplerName

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure factors, generators, segmenters and classifiers, and write the report of a run.",
)

OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for metrics, tables and pictures.")
]
ScansOption = Annotated[Path, typer.Option("--data", help="A manifest, or a folder with an index.json.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of all random choices and of the bootstrap.")
]
DocumentOption = Annotated[
    Path | None,
    typer.Option(
        "--document",
        help="Page whose tables are replaced between two marker lines, such as docs/benchmarks.md.",
    ),
]
CardOption = Annotated[bool, typer.Option("--card", help="Store the metrics on the card of the model.")]


@app.command()
def factors(
    network: Annotated[
        Path, typer.Argument(help="Folder of a run, a checkpoint of a run, or an exported model.")
    ],
    data: Annotated[Path, typer.Option(help="A manifest, a folder with an index.json, or a latent cache.")],
    output: OutputOption,
    split: Annotated[SplitChoice, typer.Option(help="Split of the scans of a manifest.")] = "test",
    crops: Annotated[int, typer.Option(min=8, help="Number of crops from a latent cache.")] = 256,
    seed: SeedOption = 2025,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Measure how well style and content predict the domain: probes, silhouettes, t-SNE maps."""
    from meduet_training.evaluation.factors.analysis import FACTORS_JSON, analyse_factors, write_factors
    from meduet_training.evaluation.factors.extractors import open_extractor
    from meduet_training.evaluation.factors.samples import collect_factor_samples
    from meduet_training.reporting.factor_pictures import write_factor_pictures
    from meduet_training.runtime.folders import check_writable
    from meduet_training.runtime.messages import exit_with_message

    with exit_with_message():
        _check_free(output / FACTORS_JSON, overwrite)
        extractor = open_extractor(network, device)
        check_writable(output)
        samples = collect_factor_samples(extractor, data, split, crops, seed, _report)
        analysis = analyse_factors(samples, seed)
        write_factors(analysis, output)
        write_factor_pictures(analysis, output)
        typer.echo(analysis.as_markdown())
        typer.echo(f"Wrote {output}.")


@app.command()
def synthesis(
    output: OutputOption,
    data: ScansOption,
    model: Annotated[Path, typer.Option(help="Model folder with a generator.")] = EMBEDDED_MODEL,
    cache: Annotated[Path, typer.Option(help="Cache directory for the factors of scans.")] = Path(
        "caches/factors"
    ),
    count: Annotated[
        int, typer.Option("-n", min=8, help="Number of real crops, and of generated crops.")
    ] = 64,
    sampler: Annotated[
        SamplerName, typer.Option(help="Sampler. ddpm and ddim need a generator that predicts noise.")
    ] = "multistep",
    steps: Annotated[int, typer.Option(min=1, help="Number of sampling steps.")] = 12,
    wc: Annotated[float, typer.Option(help="Guidance weight of the content.")] = GUIDANCE_WEIGHT,
    ws: Annotated[float, typer.Option(help="Guidance weight of the style.")] = GUIDANCE_WEIGHT,
    extractor: Annotated[
        Path | None,
        typer.Option(
            help="Weights of MedicalNet's ResNet-50 (.safetensors, .pth). Default: pyramid features."
        ),
    ] = None,
    seed: SeedOption = 2025,
    device: DeviceOption = "auto",
    document: DocumentOption = None,
    card: CardOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure quality, memorisation and controllability of a generator."""
    from meduet_training.evaluation.sections import write_evaluation
    from meduet_training.evaluation.synthesis.evaluate import NAME, SynthesisOptions, evaluate_synthesis
    from meduet_training.reporting.synthesis_pictures import write_synthesis_pictures
    from meduet_training.runtime.messages import exit_with_message
    from napari_meduet.models.card import read_card
    from napari_meduet.models.saving import save_metrics
    from napari_meduet.pipelines.requests import SynthesisRequest

    with exit_with_message():
        options = SynthesisOptions(
            model=model,
            data=data,
            cache=cache,
            count=count,
            seed=seed,
            sampling=SynthesisRequest(sampler=sampler, steps=steps, content_weight=wc, style_weight=ws),
            extractor=extractor,
            device=device,
        )
        _check_output(output, NAME, document, overwrite)
        evaluation = evaluate_synthesis(options, _report, typer.echo)
        write_evaluation(evaluation, NAME, output, document)
        if card:
            save_metrics(model, read_card(model).metrics | {NAME: evaluation.as_card_data()})
        write_synthesis_pictures(evaluation, output)
        typer.echo(f"Wrote {output}.")


@app.command()
def segmentation(
    model: Annotated[Path, typer.Argument(help="Model folder with a segmenter.")],
    data: Annotated[
        Path,
        typer.Option(help="A manifest, or a folder of scans with labels. Its test split is evaluated."),
    ],
    output: OutputOption,
    names: Annotated[
        Path | None, typer.Option(help="YAML file with the names of the labels, if the list has none.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration of the training of the segmenter. Its data.classes join labels to classes."
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another model with a segmenter, for comparison. May be repeated."),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="Evaluate two baselines: a lung threshold, and registered atlases."),
    ] = False,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Tolerance of NSD in mm.")] = 3.0,
    seed: SeedOption = 2025,
    device: DeviceOption = "auto",
    document: DocumentOption = None,
    card: CardOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure Dice and NSD of a segmenter on test scans, compared with other models and baselines."""
    from meduet_training.evaluation.sections import write_evaluation
    from meduet_training.evaluation.segmentation.evaluate import (
        NAME,
        SegmentationOptions,
        evaluate_segmentation,
    )
    from meduet_training.reporting.segmentation_pictures import write_segmentation_picture
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.segmenter.task import SEGMENTER
    from napari_meduet.models.saving import save_metrics

    with exit_with_message():
        _check_output(output, NAME, document, overwrite)
        given = {"data": {"model": str(model), "scans": str(data)}}
        trained_on = SEGMENTER.read(config, given).data if config else None
        options = SegmentationOptions(
            model=model,
            data=data,
            names=names,
            joined_labels=(trained_on.classes or {}) if trained_on else {},
            sequences=trained_on.sequences if trained_on else (),
            against=tuple(against or ()),
            baselines=baselines,
            tolerance_mm=tolerance,
            seed=seed,
            device=device,
        )
        evaluation = evaluate_segmentation(
            options, _report, lambda segmented, task: write_segmentation_picture(segmented, task, output)
        )
        write_evaluation(evaluation, NAME, output, document)
        if card:
            save_metrics(model, evaluation.as_card_data(), of="segmenter")
        typer.echo(evaluation.as_markdown())
        typer.echo(f"Wrote {output}.")


@app.command()
def classification(
    model: Annotated[Path, typer.Argument(help="Model folder with a classifier.")],
    data: ScansOption,
    target: Annotated[str, typer.Option(help="Column of the list with the class of each scan.")],
    output: OutputOption,
    seed: SeedOption = 2025,
    device: DeviceOption = "auto",
    document: DocumentOption = None,
    card: CardOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure AUC and balanced accuracy of a classifier on test scans."""
    from meduet_training.evaluation.classification import (
        NAME,
        ClassificationOptions,
        evaluate_classification,
    )
    from meduet_training.evaluation.sections import write_evaluation
    from meduet_training.runtime.messages import exit_with_message
    from napari_meduet.models.saving import save_metrics

    with exit_with_message():
        _check_output(output, NAME, document, overwrite)
        options = ClassificationOptions(model=model, data=data, target=target, seed=seed, device=device)
        evaluation = evaluate_classification(options, _report)
        write_evaluation(evaluation, NAME, output, document)
        if card:
            save_metrics(model, evaluation.as_card_data(), of="classifier")
        typer.echo(evaluation.as_markdown())
        typer.echo(f"Wrote {output}.")


@app.command()
def report(run_folder: RunFolderArgument) -> None:
    """Write report.html of a run again, from the files in its folder. The run may be unfinished."""
    from meduet_training.reporting.report import write_report
    from meduet_training.runtime.messages import exit_with_message

    with exit_with_message():
        typer.echo(f"Wrote {write_report(run_folder)}.")


def _report(line: str) -> None:
    """Print a line of progress to stderr."""
    typer.echo(line, err=True)


def _check_output(output: Path, name: str, document: Path | None, overwrite: bool) -> None:
    """Check the output folder and the document before a long evaluation starts.

    Raises:
        InputError: the folder holds an evaluation or cannot be written, or the document lacks the markers.
    """
    from meduet_training.evaluation.sections import check_section
    from meduet_training.runtime.folders import check_writable

    _check_free(output / f"{name}.json", overwrite)
    if document is not None:
        check_section(document, name)
    check_writable(output)


def _check_free(file: Path, overwrite: bool) -> None:
    """Check that a result file does not exist, or may be replaced.

    Raises:
        InputError: the file exists.
    """
    from napari_meduet.errors import InputError

    if file.exists() and not overwrite:
        raise InputError(
            f"{file.parent.name}: this folder holds {file.name} of an earlier evaluation. Give another "
            "folder, or --overwrite."
        )

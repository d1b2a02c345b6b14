"""The command `meduet`: extract, prototype, swap, synthesize, roundtrip, segment, classify, info.

A command builds a request from its options, shows progress, and writes the result of the pipeline
(specification, sections 7-10). It computes nothing. Torch and the pipelines are imported inside the
commands, so `--help` and `info` answer at once. An input error is printed as one sentence on stderr with exit
code 2.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from typer.core import TyperGroup

from napari_meduet import __version__
from napari_meduet.core.options import (
    GUIDANCE_WEIGHT,
    Anatomy,
    Decode,
    GuidanceForm,
    Precision,
    StyleMode,
    Through,
)
from napari_meduet.core.synthesis.sampler_registry import SAMPLERS, SamplerName
from napari_meduet.errors import Cancelled, InputError, OnProgress
from napari_meduet.models.devices import DeviceName
from napari_meduet.volumes.modality import Modality

if TYPE_CHECKING:
    from napari_meduet.pipelines.requests import ScanChoice, SegmentRequest
    from napari_meduet.pipelines.synthesis.outputs import Preview
    from napari_meduet.volumes.volume import Volume

Switch = Literal["on", "off"]

EXIT_INPUT = 2
EXIT_SOME_FAILED = 65  # EX_DATAERR of sysexits.h
EXIT_INTERRUPTED = 130  # as a shell reports a process stopped by Ctrl-C

_STEPS = ", ".join(f"{record.default_steps} for {name}" for name, record in SAMPLERS.items())

_stderr = Console(stderr=True, highlight=False)


class _Sentences(TyperGroup):
    """A command group that prints input errors as one sentence, and ends quietly after Ctrl-C."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _stderr.print(" ".join(str(error).split()), markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_INPUT) from None
        except KeyboardInterrupt:
            _stderr.print("Stopped. Nothing was written.")
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=_Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Separate content and style of CT and MR scans: swap styles, harmonise, synthesize, segment.",
)

ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Model folder. Default: the embedded model.")
]
DeviceOption = Annotated[
    DeviceName, typer.Option(help="Processor to run on. auto uses a GPU if there is one.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output file.")]
ModalityOption = Annotated[
    Modality | None,
    typer.Option(case_sensitive=False, help="Modality of the scan, if the file does not tell it."),
]
VolumeOption = Annotated[
    int | None, typer.Option("--volume", help="Index of the volume in a 4-D file, from 0.")
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--series", help="Number of the series in a DICOM folder, from the list that the command prints."
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="File to write. A JSON sidecar is written beside it.")
]


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Show a progress bar on stderr; yield the function that moves it."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda fraction, doing: bar.update(task, completed=fraction, description=doing)


@contextmanager
def _stopping_at_a_report(on_progress: OnProgress) -> Iterator[OnProgress]:
    """Cancel the work at its next progress report after Ctrl-C, so partial results are kept.

    A second Ctrl-C ends the process at once.
    """
    is_stopped = False

    def stop(*_: object) -> None:
        nonlocal is_stopped
        is_stopped = True
        signal.signal(signal.SIGINT, before)

    def report(fraction: float, doing: str) -> None:
        if is_stopped:
            raise Cancelled
        on_progress(fraction, doing)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield report
    except Cancelled:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        _stderr.print(f"Warning: {warning}", markup=False, soft_wrap=True, style="yellow")


def _choice(modality: Modality | None, volume: int | None, series: str | None) -> "ScanChoice":
    from napari_meduet.pipelines.requests import ScanChoice

    return ScanChoice(modality=modality, volume_index=volume, series=series)


@app.command()
def extract(
    scans: Annotated[list[Path], typer.Argument(help="Scans: NIfTI, NRRD or MHA files, or DICOM folders.")],
    output: OutputOption,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep the names of the files in the output.")
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the factors of scans: pooled content and style, token grids, and the SHA-256 of each scan."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import ExtractRequest

    check_output(output, ".safetensors", overwrite=overwrite, inputs=scans)
    request = ExtractRequest(
        scans=scans,
        keep_names=keep_names,
        model=model,
        device=device,
        choice=_choice(modality, volume, series),
    )
    with _progress() as on_progress:
        from napari_meduet.pipelines.factors import extract as run

        result = run(request, on_progress)
        result.save(output, overwrite=overwrite)
    _warn(result.provenance["warnings"])
    typer.echo(f"Factors of {len(scans)} scan{'s' if len(scans) > 1 else ''} written to {output}.")


@app.command()
def prototype(
    scans: Annotated[list[Path], typer.Argument(help="Scans of one scanner or site. 16 scans are enough.")],
    output: OutputOption,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the mean style of scans as a small file without any image. `swap` accepts it as the style."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import PrototypeRequest

    check_output(output, ".style", overwrite=overwrite, inputs=scans)
    request = PrototypeRequest(
        scans=scans, model=model, device=device, choice=_choice(modality, volume, series)
    )
    with _progress() as on_progress:
        from napari_meduet.pipelines.factors import make_prototype

        result = make_prototype(request, on_progress)
        result.save(output, overwrite=overwrite)
    _warn(result.provenance["warnings"])
    typer.echo(f"Style of {len(scans)} scan{'s' if len(scans) > 1 else ''} written to {output}.")


@app.command()
def swap(
    content: Annotated[Path, typer.Argument(help="Scan whose anatomy is kept.")],
    style: Annotated[Path, typer.Argument(help="Style scan or .style file.")],
    output: OutputOption,
    mode: Annotated[
        StyleMode, typer.Option(help="How the style is applied to the content tokens.")
    ] = "shift",
    strength: Annotated[
        float,
        typer.Option(help="Strength of the style: 0 returns the scan unchanged, 1 applies the whole style."),
    ] = 1.0,
    decode: Annotated[
        Decode,
        typer.Option(help="residual adds the decoded change to the scan; full writes the decoded scan."),
    ] = "residual",
    texture: Annotated[
        Switch, typer.Option(help="Also change noise and sharpness towards those of the style.")
    ] = "on",
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Label volume on the grid of the content. The report gives the drift under each label."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed for the edge points that the safety report compares.")
    ] = 0,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    style_volume: Annotated[
        int | None, typer.Option(help="Index of the volume in the 4-D file of the style, from 0.")
    ] = None,
    style_series: Annotated[
        str | None, typer.Option(help="Number of the series in the DICOM folder of the style.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Apply the style of one scan to another, on the grid of the content, and write a safety report."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import SwapRequest

    inputs = [path for path in (content, style, labels) if path is not None]
    check_output(output, ".nii.gz", ".nii", overwrite=overwrite, inputs=inputs)
    request = SwapRequest(
        content,
        style,
        mode=mode,
        strength=strength,
        decode=decode,
        texture=texture == "on",
        seed=seed,
        labels=labels,
        model=model,
        device=device,
        content_choice=_choice(modality, volume, series),
        style_choice=_choice(modality, style_volume, style_series),
    )
    with _progress() as on_progress:
        from napari_meduet.pipelines.style_swap.session import swap as run

        result = run(request, on_progress)
        result.save(output, overwrite=overwrite)
    _warn(result.provenance["warnings"])
    typer.echo(f"{result.report.verdict}: {' '.join(result.report.reasons)}")
    typer.echo(f"Written to {output}.")


@app.command()
def synthesize(
    output: OutputOption,
    content: Annotated[
        Path | None, typer.Option(help="Scan whose anatomy the result shows. Default: any anatomy.")
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(
            help="Style scan, .style file, or name of a style that the model knows. Default: any style."
        ),
    ] = None,
    anatomy: Annotated[
        Anatomy,
        typer.Option(help="same keeps the content at each position; similar keeps only its pooled features."),
    ] = "same",
    mask: Annotated[
        Path | None, typer.Option(help="Label volume on the grid of the content that the result follows.")
    ] = None,
    content_weight: Annotated[
        float, typer.Option("--wc", help="Guidance weight of the content; 0 turns it off.")
    ] = GUIDANCE_WEIGHT,
    style_weight: Annotated[
        float, typer.Option("--ws", help="Guidance weight of the style; 0 turns it off.")
    ] = GUIDANCE_WEIGHT,
    guidance: Annotated[
        GuidanceForm, typer.Option(help="Formula that combines the two guidance terms.")
    ] = "paper",
    sampler: Annotated[
        SamplerName,
        typer.Option(help="Sampler that turns noise into a scan; ddim and ddpm are for DiT generators."),
    ] = "multistep",
    steps: Annotated[int | None, typer.Option(help=f"Number of denoising steps; default: {_STEPS}.")] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Scan to start from, after noise was added to it.")
    ] = None,
    noise: Annotated[float, typer.Option(help="Fraction of noise in --start-from; 1 is noise alone.")] = 0.6,
    size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            help="Size of the result in voxels, multiples of 16. Default: the size of the generator."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed of the noise. Default: a new one for each call.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Number of scans to make.")] = 1,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Numeric precision of matrix products. int8 is fastest on a CPU, bfloat16 on a GPU."
        ),
    ] = "float32",
    model: ModelOption = None,
    device: DeviceOption = "auto",
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    style_volume: Annotated[
        int | None, typer.Option(help="Index of the volume in the 4-D file of the style, from 0.")
    ] = None,
    style_series: Annotated[
        str | None, typer.Option(help="Number of the series in the DICOM folder of the style.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Sample scans with the content of one scan and the style of another. Ctrl-C keeps the partial result."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.common.progress import parts
    from napari_meduet.pipelines.requests import ScanChoice, SynthesisRequest
    from napari_meduet.pipelines.synthesis.outputs import output_paths

    started = time.monotonic()
    request = SynthesisRequest(
        content,
        style,
        anatomy=anatomy,
        mask=mask,
        content_weight=content_weight,
        style_weight=style_weight,
        guidance=guidance,
        sampler=sampler,
        steps=steps,
        start_from=start_from,
        noise=noise,
        size=size,
        seed=seed,
        count=count,
        precision=precision,
        model=model,
        device=device,
        content_choice=_choice(modality, volume, series),
        style_choice=_choice(modality, style_volume, style_series),
        start_choice=ScanChoice(modality=modality),
    )
    given = [Path(path) for path in (content, style, mask, start_from) if path is not None]
    for path in output_paths(output, count):
        check_output(path, ".nii.gz", ".nii", overwrite=overwrite, inputs=given)

    def on_preview(preview: "Preview") -> None:
        if (preview.sample, preview.step) == (0, 1):
            _stderr.print(f"First preview after {time.monotonic() - started:.1f} s.")

    with _progress() as on_progress, _stopping_at_a_report(on_progress) as report:
        from napari_meduet.pipelines.synthesis.session import open_synthesis

        opening, sampling = parts(report, 1, 4)
        session = open_synthesis(request, opening)
        _warn(session.warnings)
        _stderr.print(f"Denoising will take about {session.predicted_seconds():.0f} s.")
        result = session.sample(on_progress=sampling, on_preview=on_preview)
        written = result.save(output, overwrite=overwrite)
    _warn(result.warnings[len(session.warnings) :])
    for path, record in zip(written, result.provenances, strict=True):
        typer.echo(f"Written to {path}, seed {record['seed']}.")
    if result.is_partial:
        _stderr.print("Stopped. The partial result was kept.")
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def roundtrip(
    scan: Annotated[Path, typer.Argument(help="Scan to encode and decode.")],
    output: OutputOption,
    through: Annotated[
        Through, typer.Option(help="Networks to use: the tokenizer alone, or the tokenizer and MeDUET.")
    ] = "tokenizer",
    model: ModelOption = None,
    device: DeviceOption = "auto",
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write decode(encode(scan)) on the grid of the scan, and print PSNR and SSIM."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import RoundtripRequest

    check_output(output, ".nii.gz", ".nii", overwrite=overwrite, inputs=[scan])
    request = RoundtripRequest(
        scan,
        through=through,
        model=model,
        device=device,
        choice=_choice(modality, volume, series),
    )
    with _progress() as on_progress:
        from napari_meduet.pipelines.reconstruction import roundtrip as run

        result = run(request, on_progress)
        result.save(output, overwrite=overwrite)
    _warn(result.provenance["warnings"])
    for likeness in result.likenesses:
        typer.echo(f"{likeness.where:<28} PSNR {likeness.psnr_db:6.2f} dB   SSIM {likeness.ssim:.4f}")
    typer.echo(f"Written to {output}.")


@app.command()
def segment(
    scan: Annotated[Path, typer.Argument(help="Scan or folder of scans to segment.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="NIfTI file of labels to write, or the output folder for a folder of scans.",
        ),
    ],
    together: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="Further sequence of the patient on the same grid, for a segmenter of several. Repeatable.",
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="PNG picture to write, with the labels on three planes.")
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(help="JSON file to write, with the voxels and mL of each structure.")
    ] = None,
    largest_parts: Annotated[
        bool, typer.Option("--largest-parts", help="Keep only the largest connected part of each structure.")
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a label volume on the grid of the scan, and print the volume of each structure in mL."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import SegmentRequest

    def request_for(scan: "Path | Volume") -> SegmentRequest:
        return SegmentRequest(
            scan,
            together=tuple(together or ()),
            largest_parts=largest_parts,
            model=model,
            device=device,
            choice=_choice(modality, volume, series),
        )

    if scan.is_dir() and not output.name.endswith((".nii", ".nii.gz")):
        if overlay or statistics or overwrite or together:
            raise InputError(
                "--overlay, --statistics, --with and --overwrite are for one scan. A folder of scans gets a "
                "table of volumes, and existing labels are kept."
            )
        _segment_folder(scan, output, request_for)
        return
    check_output(output, ".nii.gz", ".nii", overwrite=overwrite, inputs=[scan, *(together or ())])
    for option, path, suffix in (("--overlay", overlay, ".png"), ("--statistics", statistics, ".json")):
        if path is not None:
            check_output(path, suffix, overwrite=overwrite, option=option, beside=output)
    with _progress() as on_progress:
        from napari_meduet.pipelines.segmentation.session import segment as run

        result = run(request_for(scan), on_progress)
        result.save(output, overlay=overlay, statistics=statistics, overwrite=overwrite)
    _warn(result.warnings)
    for label, name in result.names.items():
        typer.echo(f"{label:>4}  {name:<28} {result.volumes_ml[label]:10.2f} mL")
    typer.echo(f"Written to {output}.")


def _segment_folder(
    folder: Path, target: Path, request_for: "Callable[[Path | Volume], SegmentRequest]"
) -> None:
    """Segment every scan of a folder. A scan that fails does not stop the others."""
    with _progress() as on_progress:
        from napari_meduet.pipelines.segmentation.folder import segment_folder
        from napari_meduet.pipelines.segmentation.session import load_segmenting_model
        from napari_meduet.pipelines.segmentation.session import segment as run
        from napari_meduet.pipelines.segmentation.volumes_table import write_volumes_table

        request = request_for(folder)
        load_segmenting_model(request.model, request.device)
        report = segment_folder(
            lambda scan, on_scan: run(request_for(scan), on_scan),
            folder,
            target,
            on_progress,
            request.choice,
        )
        table = write_volumes_table(target)
    for name, sentence in report.failed.items():
        _stderr.print(f"{name}: {' '.join(sentence.split())}", markup=False, soft_wrap=True)
    typer.echo(
        f"{len(report.written)} segmented, {len(report.skipped)} already done, "
        f"{len(report.failed)} failed; volumes are in {table}."
    )
    if report.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def classify(
    scan: Annotated[Path, typer.Argument(help="Scan to classify.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="JSON file to write, with the probabilities and their provenance."
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Print the probability of each class of the model's classifier."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import ClassifyRequest

    if output is not None:
        check_output(output, ".json", overwrite=overwrite, inputs=[scan])
    request = ClassifyRequest(scan, model=model, device=device, choice=_choice(modality, volume, series))
    with _progress() as on_progress:
        from napari_meduet.pipelines.classification import classify as run

        result = run(request, on_progress)
        if output is not None:
            result.save(output, overwrite=overwrite)
    _warn(result.warnings)
    width = max(map(len, result.probabilities))
    for name, probability in sorted(result.probabilities.items(), key=lambda item: -item[1]):
        typer.echo(f"{name:<{width}}  {probability:7.2%}")
    if output is not None:
        typer.echo(f"Written to {output}.")


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="Scan, model folder, .style file, factors file or result.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
) -> None:
    """Describe a file. Scans are checked, and warnings are printed."""
    from napari_meduet.pipelines.info import describe

    facts = describe(path, _choice(modality, volume, series))
    _warn(facts.get("warnings", []))
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    for name, value in facts.items():
        if name != "warnings":
            typer.echo(f"{name.replace('_', ' '):<22} {_readable(value)}")


def _readable(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        is_nested = value and isinstance(value[0], list | tuple)
        return ("\n" + " " * 23 if is_nested else " ").join(_readable(item) for item in value)
    if isinstance(value, dict):
        return "".join(f"\n  {name:<20} {_readable(item)}" for name, item in value.items())
    return "unknown" if value is None else str(value)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version.")] = False,
) -> None:
    """Separate content and style of CT and MR scans."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


if __name__ == "__main__":
    app()

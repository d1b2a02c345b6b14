"""The commands: `meduet extract | prototype | swap | synthesize | segment | info | ...` (specification, sections 7-10).

A command turns its words into a request, shows progress, and writes what the pipeline answers. It holds no
arithmetic. Torch and the pipelines are imported inside the commands, so that
`--help` and `info` open at once. Whatever a person can mend ends in one sentence on stderr and exit code 2.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from napari_meduet import __version__
from napari_meduet.core.options import GUIDANCE_WEIGHT
from napari_meduet.core.synthesis.sampler_registry import SAMPLERS, SamplerName
from napari_meduet.errors import Cancelled, InputError, OnProgress

if TYPE_CHECKING:
    from napari_meduet.pipelines.requests import ScanChoice, SegmentRequest
    from napari_meduet.pipelines.synthesis.outputs import Preview
    from napari_meduet.volumes.volume import Volume

EXIT_INPUT = 2
EXIT_SOME_FAILED = 65  # EX_DATAERR of sysexits.h
EXIT_INTERRUPTED = 130  # as a shell reports a process stopped by Ctrl-C

_STEPS = ", ".join(f"{record.default_steps} for {name}" for name, record in SAMPLERS.items())

_stderr = Console(stderr=True, highlight=False)


class Mode(StrEnum):
    shift = "shift"
    prototype = "prototype"
    adain = "adain"
    token = "token"  # noqa: S105 - a token of the network


class Decode(StrEnum):
    residual = "residual"
    full = "full"


class Switch(StrEnum):
    on = "on"
    off = "off"


class Through(StrEnum):
    tokenizer = "tokenizer"
    meduet = "meduet"


class Anatomy(StrEnum):
    same = "same"
    similar = "similar"


class Guidance(StrEnum):
    paper = "paper"
    compositional = "compositional"
    nested = "nested"


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Modality(StrEnum):
    CT = "CT"
    MR = "MR"


class _Sentences(TyperGroup):
    """Turns errors that a person can mend into one sentence, and Ctrl-C into a quiet end."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _stderr.print(" ".join(str(error).split()), markup=False, soft_wrap=True)
            raise typer.Exit(EXIT_INPUT) from None
        except KeyboardInterrupt:
            _stderr.print("Stopped; nothing was written.")
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=_Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Content and style of CT and MR scans told apart: the style of one scan on another.",
)

ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Folder of a model; the embedded one by default.")
]
DeviceOption = Annotated[
    Device, typer.Option(help="Processor to run on; auto takes a GPU where there is one.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")]
ModalityOption = Annotated[
    Modality | None, typer.Option(case_sensitive=False, help="CT or MR, where the file does not say.")
]
VolumeOption = Annotated[int | None, typer.Option("--volume", help="Which volume of a 4-D file, from 0.")]
SeriesOption = Annotated[
    str | None,
    typer.Option("--series", help="Which series of a DICOM folder: its number in the list that is printed."),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="File to write; its sidecar goes beside it.")
]


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on stderr that a pipeline can move."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda fraction, doing: bar.update(task, completed=fraction, description=doing)


@contextmanager
def _stopping_at_a_report(on_progress: OnProgress) -> Iterator[OnProgress]:
    """Ctrl-C cancels the work where it next reports, so that what was seen of it is kept; twice ends it."""
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

    return ScanChoice(modality=modality and modality.value, volume_index=volume, series=series)


@app.command()
def extract(
    scans: Annotated[list[Path], typer.Argument(help="Scans: NIfTI, NRRD, MHA or DICOM folders.")],
    output: OutputOption,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep the files' names in the output.")
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = Device.auto,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the factors of scans: pooled content and style, their token grids, and the scans' digests."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import ExtractRequest

    check_output(output, ".safetensors", overwrite=overwrite, inputs=scans)
    request = ExtractRequest(
        scans=scans,
        keep_names=keep_names,
        model=model,
        device=device.value,
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
    scans: Annotated[list[Path], typer.Argument(help="Scans of one scanner or site; 16 are plenty.")],
    output: OutputOption,
    model: ModelOption = None,
    device: DeviceOption = Device.auto,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the style that scans share, a few kB that hold no image: `swap` takes it in place of a scan."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import PrototypeRequest

    check_output(output, ".style", overwrite=overwrite, inputs=scans)
    request = PrototypeRequest(
        scans=scans, model=model, device=device.value, choice=_choice(modality, volume, series)
    )
    with _progress() as on_progress:
        from napari_meduet.pipelines.factors import make_prototype

        result = make_prototype(request, on_progress)
        result.save(output, overwrite=overwrite)
    _warn(result.provenance["warnings"])
    typer.echo(f"Style of {len(scans)} scan{'s' if len(scans) > 1 else ''} written to {output}.")


@app.command()
def swap(
    content: Annotated[Path, typer.Argument(help="Scan whose anatomy stays.")],
    style: Annotated[Path, typer.Argument(help="Scan, or .style prototype, whose look is taken over.")],
    output: OutputOption,
    mode: Annotated[Mode, typer.Option(help="How the style is applied.")] = Mode.shift,
    strength: Annotated[float, typer.Option(help="0 leaves the scan as it is, 1 is the whole style.")] = 1.0,
    decode: Annotated[
        Decode,
        typer.Option(help="residual: add the decoded change to the scan; full: what the network decodes."),
    ] = Decode.residual,
    texture: Annotated[
        Switch, typer.Option(help="Move noise and sharpness towards the style's too.")
    ] = Switch.on,
    labels: Annotated[
        Path | None,
        typer.Option(help="Label volume on the content's grid; drift under each label is reported."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the edge points that the safety report compares.")] = 0,
    model: ModelOption = None,
    device: DeviceOption = Device.auto,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    style_volume: Annotated[int | None, typer.Option(help="--volume of the style.")] = None,
    style_series: Annotated[str | None, typer.Option(help="--series of the style.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Give one scan the style of another, on its own grid, with a safety report."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import SwapRequest

    inputs = [path for path in (content, style, labels) if path is not None]
    check_output(output, ".nii.gz", ".nii", overwrite=overwrite, inputs=inputs)
    request = SwapRequest(
        content,
        style,
        mode=mode.value,
        strength=strength,
        decode=decode.value,
        texture=texture is Switch.on,
        seed=seed,
        labels=labels,
        model=model,
        device=device.value,
        content_choice=_choice(modality, volume, series),
        style_choice=_choice(modality, style_volume, style_series),
    )
    with _progress() as on_progress:
        from napari_meduet.pipelines.swap.session import swap as run

        result = run(request, on_progress)
        result.save(output, overwrite=overwrite)
    _warn(result.provenance["warnings"])
    typer.echo(f"{result.report.verdict}: {' '.join(result.report.reasons)}")
    typer.echo(f"Written to {output}.")


@app.command()
def synthesize(
    output: OutputOption,
    content: Annotated[Path | None, typer.Option(help="Scan whose anatomy is asked for; else any.")] = None,
    style: Annotated[
        str | None,
        typer.Option(help="Scan, .style prototype, or name of a style the model knows; else any look."),
    ] = None,
    anatomy: Annotated[
        Anatomy, typer.Option(help="same: the content's, place by place; similar: what it has in common.")
    ] = Anatomy.same,
    mask: Annotated[
        Path | None, typer.Option(help="Label volume on the content's grid that the result follows.")
    ] = None,
    content_weight: Annotated[
        float, typer.Option("--wc", help="Guidance weight of the content; 0 is no guidance.")
    ] = GUIDANCE_WEIGHT,
    style_weight: Annotated[
        float, typer.Option("--ws", help="Guidance weight of the style; 0 is no guidance.")
    ] = GUIDANCE_WEIGHT,
    guidance: Annotated[Guidance, typer.Option(help="How the two are combined.")] = Guidance.paper,
    sampler: Annotated[
        SamplerName,
        typer.Option(help="Sampler that turns noise into a scan; ddim and ddpm are for DiT generators."),
    ] = "multistep",
    steps: Annotated[int | None, typer.Option(help=f"Number of denoising steps; default: {_STEPS}.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="Scan to begin from, with noise on it.")] = None,
    noise: Annotated[float, typer.Option(help="Noise on --start-from; 1 leaves nothing of it.")] = 0.6,
    size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Voxels of the result, multiples of 16; by default the generator's own size."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the noise; by default another each time.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="How many scans to make.")] = 1,
    precision: Annotated[
        Precision, typer.Option(help="Of the network's products: int8 is faster on a CPU, bfloat16 on a GPU.")
    ] = Precision.float32,
    model: ModelOption = None,
    device: DeviceOption = Device.auto,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    style_volume: Annotated[int | None, typer.Option(help="--volume of the style.")] = None,
    style_series: Annotated[str | None, typer.Option(help="--series of the style.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Make new scans with the content of one scan and the style of another. Ctrl-C keeps what was seen."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.common.progress import parts
    from napari_meduet.pipelines.requests import ScanChoice, SynthesisRequest
    from napari_meduet.pipelines.synthesis.outputs import output_paths

    started = time.monotonic()
    request = SynthesisRequest(
        content,
        style,
        anatomy=anatomy.value,
        mask=mask,
        content_weight=content_weight,
        style_weight=style_weight,
        guidance=guidance.value,
        sampler=sampler,
        steps=steps,
        start_from=start_from,
        noise=noise,
        size=size,
        seed=seed,
        count=count,
        precision=precision.value,
        model=model,
        device=device.value,
        content_choice=_choice(modality, volume, series),
        style_choice=_choice(modality, style_volume, style_series),
        start_choice=ScanChoice(modality=modality and modality.value),
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
        _stderr.print("Stopped; what was seen until then was kept.")
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def roundtrip(
    scan: Annotated[Path, typer.Argument(help="Scan to encode and decode.")],
    output: OutputOption,
    through: Annotated[
        Through, typer.Option(help="The tokenizer alone, or tokenizer and MeDUET.")
    ] = Through.tokenizer,
    model: ModelOption = None,
    device: DeviceOption = Device.auto,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write decode(encode(scan)) on the scan's grid, and print how near it came."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import RoundtripRequest

    check_output(output, ".nii.gz", ".nii", overwrite=overwrite, inputs=[scan])
    request = RoundtripRequest(
        scan,
        through=through.value,
        model=model,
        device=device.value,
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
    scan: Annotated[Path, typer.Argument(help="Scan to segment, or a folder of scans.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="NIfTI file of labels to write; of a folder of scans, another folder."
        ),
    ],
    together: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="The patient's next sequence on the scan's grid, where the segmenter reads several; repeat.",
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="PNG picture to write: three planes with the labels.")
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(help="JSON file to write: voxels and mL of every structure.")
    ] = None,
    largest_parts: Annotated[
        bool, typer.Option("--largest-parts", help="Keep the largest connected part of each structure only.")
    ] = False,
    model: ModelOption = None,
    device: DeviceOption = Device.auto,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write which structure every voxel of a scan belongs to, on the scan's grid, and print volumes in mL."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import SegmentRequest

    def asked(scan: "Path | Volume") -> SegmentRequest:
        return SegmentRequest(
            scan,
            together=tuple(together or ()),
            largest_parts=largest_parts,
            model=model,
            device=device.value,
            choice=_choice(modality, volume, series),
        )

    if scan.is_dir() and not output.name.endswith((".nii", ".nii.gz")):
        if overlay or statistics or overwrite or together:
            raise InputError(
                "--overlay, --statistics, --with and --overwrite are for one scan; a folder of scans gets a "
                "table of volumes, and labels that are there stay."
            )
        _segment_folder(scan, output, asked)
        return
    check_output(output, ".nii.gz", ".nii", overwrite=overwrite, inputs=[scan, *(together or ())])
    for option, path, suffix in (("--overlay", overlay, ".png"), ("--statistics", statistics, ".json")):
        if path is not None:
            check_output(path, suffix, overwrite=overwrite, option=option, beside=output)
    with _progress() as on_progress:
        from napari_meduet.pipelines.segmentation.session import segment as run

        result = run(asked(scan), on_progress)
        result.save(output, overlay=overlay, statistics=statistics, overwrite=overwrite)
    _warn(result.warnings)
    for label, name in result.names.items():
        typer.echo(f"{label:>4}  {name:<28} {result.volumes_ml[label]:10.2f} mL")
    typer.echo(f"Written to {output}.")


def _segment_folder(folder: Path, target: Path, asked: "Callable[[Path | Volume], SegmentRequest]") -> None:
    """Every scan of a folder; one that fails does not stop the others."""
    with _progress() as on_progress:
        from napari_meduet.pipelines.segmentation.folder import segment_folder
        from napari_meduet.pipelines.segmentation.session import load_segmenting_model
        from napari_meduet.pipelines.segmentation.session import segment as run
        from napari_meduet.pipelines.segmentation.volumes_table import write_volumes_table

        request = asked(folder)
        load_segmenting_model(request.model, request.device)
        report = segment_folder(
            lambda scan, on_scan: run(asked(scan), on_scan),
            folder,
            target,
            on_progress,
            request.choice,
        )
        table = write_volumes_table(target)
    for name, sentence in report.failed.items():
        _stderr.print(f"{name}: {' '.join(sentence.split())}", markup=False, soft_wrap=True)
    typer.echo(
        f"{len(report.written)} segmented, {len(report.skipped)} were there already, "
        f"{len(report.failed)} failed; volumes are in {table}."
    )
    if report.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def classify(
    scan: Annotated[Path, typer.Argument(help="Scan to classify.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="JSON file to write, with where the answer comes from."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = Device.auto,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Print how probable each class is that the model's classifier knows."""
    from napari_meduet.pipelines.common.outputs import check_output
    from napari_meduet.pipelines.requests import ClassifyRequest

    if output is not None:
        check_output(output, ".json", overwrite=overwrite, inputs=[scan])
    request = ClassifyRequest(
        scan, model=model, device=device.value, choice=_choice(modality, volume, series)
    )
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
    path: Annotated[Path, typer.Argument(help="Scan, model folder, .style, factors file, or a result.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    modality: ModalityOption = None,
    volume: VolumeOption = None,
    series: SeriesOption = None,
) -> None:
    """Say what a file is. Scans are checked like everywhere else; what is doubtful is told."""
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
    """Content and style of CT and MR scans told apart."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


if __name__ == "__main__":
    app()

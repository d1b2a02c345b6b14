"""`meduet-cohort`: from a folder of scans to the manifest that the trainings read.

Libraries are imported inside the command, so that `--help` opens at once.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from meduet_training.data.cohort.layout import Layout

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

WORKERS = 4  # each may hold a scan of a gigabyte or two


class FileModality(StrEnum):
    CT = "CT"
    MR = "MR"


@app.callback()
def cohort() -> None:
    """From a folder of scans to the manifest that the trainings read."""


@app.command()
def scan(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of the scans, or a CSV file that lists them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest: a .csv or .parquet file.")],
    layout: Annotated[Layout, typer.Option(help="How the folder is laid out; auto looks.")] = Layout.auto,
    domain_from: Annotated[
        str | None,
        typer.Option(
            help="What a domain is: folder:LEVEL (default folder:1), name:REGEX, column:NAME, or DICOM tags, "
            "as in dicom:Manufacturer,ConvolutionKernel."
        ),
    ] = None,
    patient_from: Annotated[
        str | None,
        typer.Option(
            help="What tells the patient: folder:LEVEL (default folder:2), name:REGEX or column:NAME; the "
            "PatientID of DICOM headers counts more, unless you say."
        ),
    ] = None,
    modality: Annotated[
        FileModality | None,
        typer.Option(help="Of files that do not say, as NIfTI does not; otherwise their values tell."),
    ] = None,
    profile: Annotated[str, typer.Option(help="The intensity profile of CT.")] = "ct-full",
    test_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of each domain's patients that is for testing.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the draw of the test patients.")] = 0,
    keep_small: Annotated[
        bool, typer.Option("--keep-small", help="Use scans smaller than a window of 96 voxels (144 mm) too.")
    ] = False,
    keep_patient_ids: Annotated[
        bool, typer.Option("--keep-patient-ids", help="Write the patients' ids instead of salted hashes.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read scans.")] = min(
        WORKERS, os.cpu_count() or 1
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest that is there.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Write nothing and exit with 2 if a scan is left out or doubtful."),
    ] = False,
) -> None:
    """Audit all scans below a folder and write the manifest of those that can be used.

    Patients become salted hashes. Paths stay, since the scans are read through them.
    """
    from dataclasses import replace

    from meduet_training.data.cohort.audit import Audit
    from meduet_training.data.cohort.audit_all import audit_all
    from meduet_training.data.cohort.audit_log import AuditLog
    from meduet_training.data.cohort.candidates import Origin
    from meduet_training.data.cohort.discovery import find_candidates
    from meduet_training.data.cohort.manifest import check_name, write_manifest
    from meduet_training.data.cohort.pseudonyms import Pseudonyms, open_salt
    from meduet_training.data.cohort.report import cohort_report, doubts_of
    from meduet_training.data.cohort.survey import Rules, as_row, survey
    from meduet_training.runtime.folders import make_folder
    from meduet_training.runtime.messages import exit_with_message, page
    from napari_meduet.errors import InputError
    from napari_meduet.volumes.intensity import profile_named

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a person's Ctrl-C
    with exit_with_message():
        check_name(output)
        if output.exists() and not overwrite:
            raise InputError(
                f"{output.name} exists already; give --overwrite to replace it, or another name."
            )
        profile_named(profile)
        domain, patient = (Origin.parse(text) if text else None for text in (domain_from, patient_from))
        if patient and patient.kind == "dicom":
            raise InputError("--patient-from: leave it out, and DICOM headers tell the patient.")
        tags = domain.keywords if domain else ()
        candidates = [
            replace(one, modality=modality.value)
            if modality and not (one.modality or one.path.is_dir())
            else one
            for one in find_candidates(source, layout, domain, patient)
        ]

        make_folder(output.parent)
        pseudonyms = Pseudonyms(open_salt(output.with_suffix(".salt")), keep_ids=keep_patient_ids)
        audit = Audit(pseudonyms=pseudonyms, profile=profile, tags=tags)
        log = AuditLog(output.with_suffix(".audit.jsonl"), audit)
        with _bar("Auditing scans", len(candidates)) as on_done:
            found = audit_all(candidates, audit, log, workers, on_done)
        if any(one.names_patient for several in found for one in several) and not keep_patient_ids:
            raise InputError(
                "Domains would be named for patients: the folders that stand for them hold ids or names of "
                "DICOM headers. Say with --domain-from what a domain is, for example "
                "dicom:Manufacturer,ConvolutionKernel."
            )
        rules = Rules(
            pseudonyms=pseudonyms, tags=tags, test_share=test_share, seed=seed, keep_small=keep_small
        )
        entries = survey(candidates, found, rules, output)

        page().print(cohort_report(entries))
        left_out, doubts = sum(entry.left_out is not None for entry in entries), doubts_of(entries)
        if left_out == len(entries):
            raise InputError("No scan can be used, so no manifest was written.")
        if strict and (left_out or doubts):
            raise InputError(
                f"--strict: {left_out} scans would be left out and {len(doubts)} kinds of doubt remain, see "
                "above; no manifest was written."
            )
        write_manifest(output, [as_row(entry, output) for entry in entries])
        typer.echo(f"Wrote {output}: {len(entries) - left_out} scans to use, {left_out} left out.")


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr with the time that is left; gives a function to be called after each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)

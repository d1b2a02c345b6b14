"""What a person is told of a cohort: one table of what will be used, and what was left out and why."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from meduet_training.data.cohort.survey import CLIPPED, Entry

MOST_LISTED = 30  # left-out scans; the manifest lists them all
HEADINGS = ("domain", "modality", "split", "scans", "patients", "voxels at 1.5 mm")


def cohort_report(entries: list[Entry]) -> Group:
    """The tables and sentences, for a rich console."""
    return Group(*_parts(entries))


def doubts_of(entries: list[Entry]) -> list[str]:
    """What is worth a look, one sentence each."""
    used = [entry for entry in entries if entry.left_out is None]
    alone = sorted(entry.domain for entry in used if entry.is_alone)
    clipped = [entry.path for entry in used if entry.is_clipped]
    sentences = []
    if alone:
        sentences.append(
            f"Domains of one scan, in which scanner and patient cannot be told apart: {len(alone)} "
            f"({_some(alone)})."
        )
    if clipped:
        sentences.append(
            f"Scans of which more than {CLIPPED:.0%} of the body is clipped, by the intensity profile or "
            f"before they came here: {len(clipped)} ({_some(clipped)})."
        )
    guessed = [
        entry.path for entry in used if entry.candidate.patient_is_guess and entry.found.patient is None
    ]
    if guessed:
        sentences.append(
            f"Files that count as a patient each, since no folder names one: {len(guessed)} "
            f"({_some(guessed)}); where several are of one patient, say so with --patient-from."
        )
    return sentences


def _parts(entries: list[Entry]) -> Iterator[RenderableType]:
    used = [entry for entry in entries if entry.left_out is None]
    yield _used_table(used)
    left_out = [entry for entry in entries if entry.left_out is not None]
    if left_out:
        yield _left_out_table(left_out)
    for sentence in doubts_of(entries):
        yield Text(sentence)
    unshipped = sum(not entry.candidate.may_train for entry in used)
    if unshipped:
        yield Text(f"Scans not trained on, since their licence does not allow it: {unshipped}.")


def _used_table(used: list[Entry]) -> Table:
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in used:
        split = entry.split if entry.split == "test" or entry.is_trained_on else "not trained on"
        groups.setdefault((entry.domain, entry.found.modality or "", str(split)), []).append(entry)
    table = Table(title="What will be used", title_justify="left", show_footer=True)
    trained = [entry for entry in used if entry.is_trained_on]
    footers = ("trained on", "", "", *_numbers(trained))
    for heading, footer in zip(HEADINGS, footers, strict=True):
        table.add_column(heading, footer, justify="right" if heading in HEADINGS[3:] else "left")
    for words, members in sorted(groups.items()):
        table.add_row(*map(escape, words), *_numbers(members))
    return table


def _left_out_table(left_out: list[Entry]) -> Table:
    title = f"Left out: {len(left_out)}"
    if len(left_out) > MOST_LISTED:
        title += f", of which the first {MOST_LISTED} are shown; the manifest has them all"
    table = Table("scan", "why", title=title, title_justify="left")
    for entry in left_out[:MOST_LISTED]:
        series = f" series {entry.found.series}" if entry.found.series else ""
        table.add_row(escape(entry.path + series), escape(entry.left_out or ""))
    return table


def _numbers(members: list[Entry]) -> tuple[str, str, str]:
    voxels = sum(entry.voxels for entry in members)
    return str(len(members)), str(len({entry.patient for entry in members})), f"{voxels / 1e6:,.1f} M"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more

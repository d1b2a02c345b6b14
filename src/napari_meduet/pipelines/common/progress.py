"""One bar for a job of several stages: each stage counts 0..1 for itself and fills its share of the whole."""

from collections.abc import Iterator

from napari_meduet.errors import OnProgress


def null_progress(fraction: float, doing: str) -> None:
    """Progress that nobody watches."""


def part(on_progress: OnProgress, start: float, stop: float) -> OnProgress:
    """The progress of a stage that fills the bar from `start` to `stop`."""

    def stage(fraction: float, doing: str) -> None:
        on_progress(start + (stop - start) * min(max(fraction, 0.0), 1.0), doing)

    return stage


def parts(on_progress: OnProgress, *weights: float) -> Iterator[OnProgress]:
    """The progress of each of several stages in turn, their shares proportional to the weights."""
    total, done = sum(weights), 0.0
    for weight in weights:
        yield part(on_progress, done / total, (done + weight) / total)
        done += weight

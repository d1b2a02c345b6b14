"""What a synthesis gives back: previews on the way, volumes with their provenance (specification, section 9).

Every file name contains `synthetic` (docs/reliability.md, section 6), and `partial` if sampling was stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from napari_meduet.volumes.files import sidecar_path, write_volume
from napari_meduet.volumes.volume import Volume

MARK = "synthetic"
PREVIEW_SHARE = 0.2  # of the time at most goes into previews
LEAST_INTERVAL_S = 0.5  # between two of them


@dataclass(frozen=True, kw_only=True, eq=False)
class Preview:
    """What a volume would be if all noise left it now.

    Attributes:
        sample: which of the volumes asked for, from 0.
        step: steps done, of `num_steps`.
    """

    sample: int
    step: int
    num_steps: int
    volume: Volume


OnPreview = Callable[[Preview], None]


class Previews:
    """Shows the first guess after the first step, and later ones as often as a fifth of the time allows.

    Attributes:
        latest: of the present volume.
    """

    def __init__(self, show: OnPreview | None) -> None:
        self._show = show
        self.begin()

    def begin(self) -> None:
        """A new volume, of which nothing was seen."""
        self.latest: Preview | None = None
        self._due = perf_counter()

    @property
    def is_due(self) -> bool:
        return self._show is not None and perf_counter() >= self._due

    def give(self, sample: int, step: int, num_steps: int, decode: Callable[[], Volume]) -> None:
        """Decode the present guess and show it."""
        assert self._show is not None, "nobody asked for previews"
        before = perf_counter()
        self.latest = Preview(sample=sample, step=step, num_steps=num_steps, volume=decode())
        self._show(self.latest)
        now = perf_counter()
        self._due = now + max(LEAST_INTERVAL_S, (now - before) * (1 / PREVIEW_SHARE - 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisResult:
    """New volumes, each with what its sidecar says.

    Attributes:
        samples: as many as were asked for; fewer, and the last perhaps a preview, where it was stopped.
        is_partial: it was stopped; the provenance of a preview says so as well.
        warnings: what is doubtful about all of them.
    """

    samples: tuple[Volume, ...]
    provenances: tuple[dict[str, Any], ...]
    is_partial: bool
    warnings: tuple[str, ...]

    def save(self, path: Path | str, *, overwrite: bool = False) -> list[Path]:
        """Write each volume as NIfTI, its provenance inside and beside it, and return the files written.

        Raises:
            InputError: a file is there already, or cannot be written.
        """
        paths = output_paths(Path(path), self.provenances[0]["parameters"]["count"])
        written = []
        for target, volume, record in zip(paths, self.samples, self.provenances, strict=False):
            if record["parameters"]["is_partial"]:
                target = _with(target, "_partial")
            write_volume(target, volume, provenance=record, overwrite=overwrite)
            written.append(target)
        return written


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidanceGrid:
    """One volume's noise under many guidances, to choose by eye.

    Attributes:
        content_weights, style_weights: of the rows and the columns.
        slices: (rows, columns, X, Y), the axial slice through the middle, in the volumes' unit.
        spacing_mm: of the slices' pixels.
    """

    content_weights: tuple[float, ...]
    style_weights: tuple[float, ...]
    slices: np.ndarray
    spacing_mm: float


def output_paths(path: Path, count: int) -> list[Path]:
    """Where `count` volumes go that were asked for under one name, which is made to say `synthetic`."""
    if MARK not in path.name.lower():
        path = _with(path, f"_{MARK}")
    return [path] if count == 1 else [_with(path, f"-{number:03d}") for number in range(1, count + 1)]


def _with(path: Path, ending: str) -> Path:
    """The path with something more before its suffix."""
    stem = sidecar_path(path).stem
    return path.with_name(stem + ending + path.name.removeprefix(stem))

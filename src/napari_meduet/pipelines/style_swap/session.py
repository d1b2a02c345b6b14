"""The style of one scan on another, on its own grid, with a safety report (specification, section 8, Eq. 26).

    out = x + up(decode(z_ij) - decode(z_ii)) + detail + texture        (residual, the default)

inside the intensity profile of the content x. z_ii is the content's own tokens through the network, z_ij the
same content with the style moved towards the other's; detail (MR only) makes what the network cannot resolve
follow the contrast around it; the texture is what no latent carries. So strength 0 and a scan's own style
return the input bit for bit, and voxels outside the profile's range are never touched. `composition.py` does
the sum, `safety.py` says which numbers make a result doubtful.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_meduet.core.swapping import adain_style, prototype_style, shift_style, token_style
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.styles import STYLE_SUFFIX, Style, load_style
from napari_meduet.pipelines.common.encoding import decode_latent, decode_windows
from napari_meduet.pipelines.common.labels import GRID_TOLERANCE_MM, labels_on
from napari_meduet.pipelines.common.memory import check_memory
from napari_meduet.pipelines.common.progress import null_progress, parts
from napari_meduet.pipelines.common.provenance import provenance
from napari_meduet.pipelines.common.scan_texture import TextureMove
from napari_meduet.pipelines.factors import MeasuredScan, doubts_about, measure_scan, read_scan
from napari_meduet.pipelines.requests import StyleMode, SwapRequest, check_strength
from napari_meduet.pipelines.style_swap.composition import composed
from napari_meduet.pipelines.style_swap.content_reference import ContentReference
from napari_meduet.pipelines.style_swap.edges import compare_edges, gradient, gradient_correlation
from napari_meduet.pipelines.style_swap.safety import Measurements, SafetyReport, drift_under_labels, judge
from napari_meduet.volumes.files import file_sha256, write_volume
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.safe_open import shown_name
from napari_meduet.volumes.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class SwapResult:
    """The content in the other style.

    Attributes:
        volume: on the content's grid, in its dtype and unit.
        report: whether to trust it.
        provenance: what the sidecar says.
    """

    volume: Volume
    report: SafetyReport
    provenance: dict[str, Any]

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the volume as NIfTI, its provenance inside and beside it."""
        write_volume(path, self.volume, provenance=self.provenance, overwrite=overwrite)


def swap(request: SwapRequest, on_progress: OnProgress = null_progress) -> SwapResult:
    """Give one scan the style of another.

    Raises:
        InputError: a scan, a style, the model or the device cannot be used, or they do not fit each other.
    """
    opening, rendering = parts(on_progress, 3, 2)
    return open_swap(request, opening).render(on_progress=rendering)


@torch.inference_mode()
def open_swap(request: SwapRequest, on_progress: OnProgress = null_progress) -> "SwapSession":
    """All of a swap that does not depend on its strength, kept for rendering it again and again."""
    on_progress(0.0, "reading")
    model = load_model(request.model, request.device)
    content = read_scan(request.content, request.content_choice)
    labels = None if request.labels is None else labels_on(content, request.labels)
    other = _style_source(request, model, content)
    check_memory(model, content, *([other] if isinstance(other, Volume) else []))

    first, second, third, last = parts(on_progress, 5, 5, 1, 2)
    is_own = isinstance(other, Volume) and other.sha256 == content.sha256
    taken = None if is_own else _taken_style(request, model, other, first)
    measured = measure_scan(model, content, second)
    style, tokens, style_sha256 = taken or (measured.style, measured.encoded.style, content.sha256)
    return SwapSession(
        request=request,
        model=model,
        measured=measured,
        style=style,
        style_tokens=tokens,
        style_sha256=style_sha256,
        reference=_reference(request.mode, model, measured, third),
        baseline=ContentReference.of(model, measured.encoded, last),
        labels=labels,
        warnings=_warnings(content, other),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SwapSession:
    """A swap, ready to be rendered at any strength.

    Attributes:
        measured: the content and its own style.
        style_tokens: the style scan's tokens, window by window, for mode token.
        reference: decode of what the mode makes of the content's own style; working grid, profile units.
        baseline: what the safety report compares each result with.
        labels: on the content's grid.
    """

    request: SwapRequest
    model: Model
    measured: MeasuredScan
    style: Style
    style_tokens: torch.Tensor | None
    style_sha256: str
    reference: np.ndarray
    baseline: ContentReference
    labels: np.ndarray | None
    warnings: tuple[str, ...]

    @torch.inference_mode()
    def render(
        self,
        strength: float | None = None,
        *,
        texture: bool | None = None,
        on_progress: OnProgress = null_progress,
    ) -> SwapResult:
        """The swap at a strength, by default the request's, with or without texture."""
        strength = float(self.request.strength if strength is None else strength)
        check_strength(strength)
        is_full = self.request.decode == "full"
        with_texture = (self.request.texture if texture is None else texture) and not is_full
        is_own = strength == 0 or _is_same(self.measured.style, self.style)

        joining, decoding, composing, judging = parts(on_progress, 3, 3, 3, 2)
        scan = self.measured.encoded.prepared
        moved = self.reference if is_own else self._decoded(strength, joining, decoding)
        if is_full:
            values = scan.profile.decode(scan.grid.to_native(moved))
        elif is_own:
            values = scan.values
        else:
            move = self._texture(strength) if with_texture else None
            values = composed(scan, self.reference, moved, move, composing)
        volume = scan.volume.with_values(values)
        judging(0.0, "checking the result")
        report = self._judged(moved, values, strength)
        judging(1.0, "done")
        record = self._provenance(strength, with_texture, report)
        return SwapResult(volume=volume, report=report, provenance=record)

    def _decoded(self, strength: float, joining: OnProgress, decoding: OnProgress) -> np.ndarray:
        """decode(z_ij) on the working grid, in profile units."""
        encoded, own, other = self.measured.encoded, self.measured.style.statistics, self.style.statistics

        def restyle(run: slice) -> torch.Tensor:
            tokens = encoded.style[run]
            match self.request.mode:
                case "shift":
                    return shift_style(tokens, own, other, strength)
                case "prototype":
                    return prototype_style(tokens, own, other, strength)
                case "adain":
                    return adain_style(tokens, own, other, strength)
                case "token":
                    assert self.style_tokens is not None, "open_swap keeps them for this mode"
                    return token_style(tokens, self.style_tokens[run], strength)

        latent = decode_windows(self.model, encoded, restyle, joining)
        return decode_latent(self.model, encoded.prepared, latent, decoding)

    def _texture(self, strength: float) -> TextureMove:
        """The content's texture on its way to the style's."""
        measured = self.measured
        return TextureMove.towards(
            measured.encoded.prepared,
            measured.remainder,
            measured.tissue,
            measured.style.texture,
            self.style.texture,
            strength,
        )

    def _judged(self, moved: np.ndarray, values: np.ndarray, strength: float) -> SafetyReport:
        """The safety report of a rendering."""
        scan = self.measured.encoded.prepared
        spacing_mm = self.model.card.working_spacing_mm
        after = gradient(scan.profile.encode(scan.grid.to_working(values)), spacing_mm)
        edges = compare_edges(self.baseline.edges, after, scan.body, spacing_mm, self.request.seed)
        change = scan.profile.decode(moved) - scan.profile.decode(self.reference)
        knots = scan.profile.knots
        measured = Measurements(
            modality=scan.volume.modality,
            unit=scan.volume.unit,
            value_range=knots[-1][0] - knots[0][0],
            change=float(np.abs(change[scan.body]).mean()) if scan.body.any() else 0.0,
            noise_floor=self.baseline.noise_floor,
            edge_displacement_mm=edges.displacement_mm,
            lost_edges=edges.lost_fraction,
            gradient_correlation=gradient_correlation(self.baseline.edges, after, scan.body),
            roundtrip_psnr_db=self.baseline.roundtrip_psnr_db,
            style_distance=_distance(self.style, self.model),
            clipped_fraction=scan.clipped_fraction,
            is_extrapolated=not 0 <= strength <= 1,
            label_drift=drift_under_labels(scan.values, values, self.labels)
            if self.labels is not None
            else (),
        )
        return judge(measured)

    def _provenance(self, strength: float, with_texture: bool, report: SafetyReport) -> dict[str, Any]:
        request, volume = self.request, self.measured.encoded.prepared.volume
        return provenance(
            kind="translated",
            modality=volume.modality,
            is_synthetic=True,
            sources=[("content", volume.sha256), ("style", self.style_sha256)],
            model=self.model,
            parameters={
                "mode": request.mode,
                "strength": strength,
                "decode": request.decode,
                "texture": with_texture,
                "style_scans": self.style.num_scans,
            },
            warnings=self.warnings,
            seed=request.seed,
            safety=report.as_dict(),
        )


def _style_source(request: SwapRequest, model: Model, content: Volume) -> Volume | Style:
    """The scan or the prototype whose style is taken over, checked as far as that needs no network."""
    is_prototype = not isinstance(request.style, Volume) and str(request.style).endswith(STYLE_SUFFIX)
    if is_prototype:
        path = Path(str(request.style))
        source = load_style(path)
        source.check_model(model.sha256, shown_name(path))
    else:
        source = read_scan(request.style, request.style_choice)
    if source.modality != content.modality:
        raise InputError(
            f"The content is {content.modality} and the style is {source.modality}: a style is swapped "
            "between two CT or two MR scans. If one of them was guessed wrongly, give its --modality."
        )
    if request.mode == "token":
        if isinstance(source, Style):
            raise InputError("mode 'token' copies styles place by place: it needs a scan, not a prototype.")
        one, other = (WorkingGrid.for_volume(scan) for scan in (content, source))
        if one.shape != other.shape or not np.allclose(one.affine, other.affine, atol=GRID_TOLERANCE_MM):
            raise InputError(
                "mode 'token' copies styles place by place, but the scans do not lie on one grid. "
                "Use 'shift'."
            )
    return source


def _taken_style(
    request: SwapRequest, model: Model, source: Volume | Style, on_progress: OnProgress
) -> tuple[Style, torch.Tensor | None, str]:
    """The style, its tokens for mode token, and the digest of what it came from; a style scan is let go."""
    if isinstance(source, Style):
        return source, None, file_sha256(str(request.style))
    measured = measure_scan(model, source, on_progress)
    return measured.style, measured.encoded.style if request.mode == "token" else None, source.sha256


def _reference(mode: StyleMode, model: Model, measured: MeasuredScan, on_progress: OnProgress) -> np.ndarray:
    """decode of what a mode makes of the scan's own style, on the working grid in profile units.

    A swap is the difference from it, so a scan's own style changes nothing. Every mode but `prototype`, which
    has the same style everywhere, leaves the scan's own tokens as they are.
    """
    if mode != "prototype":
        return measured.restored
    own, encoded = measured.style.statistics, measured.encoded
    joining, decoding = parts(on_progress, 1, 1)
    latent = decode_windows(
        model, encoded, lambda run: prototype_style(encoded.style[run], own, own), joining
    )
    return decode_latent(model, encoded.prepared, latent, decoding)


def _is_same(one: Style, other: Style) -> bool:
    """Whether two styles are equal to the last bit."""
    return (
        torch.equal(one.statistics.mean, other.statistics.mean)
        and torch.equal(one.statistics.std, other.statistics.std)
        and one.texture == other.texture
    )


def _distance(style: Style, model: Model) -> float | None:
    """Distance to the nearest style the model knows of this modality, in that style's spreads."""
    known = [k for k in model.known_styles.values() if k.modality == style.modality and k.spread > 0]
    if not known:
        return None
    return min(float((style.statistics.mean - k.statistics.mean).norm()) / k.spread for k in known)


def _warnings(content: Volume, style: Volume | Style) -> tuple[str, ...]:
    of_style = doubts_about("style", style) if isinstance(style, Volume) else ()
    return doubts_about("content", content) + of_style

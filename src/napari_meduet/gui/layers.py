"""Scans as napari layers and back: the only file that knows napari's axis order and world.

A layer holds (Z, Y, X) arrays, and its world counts millimetres towards inferior, posterior and left, the
negative of RAS: with napari's untouched camera that gives radiological slices and a 3-D view that is not
mirrored. The matrix is the file's own, so scans of one patient overlay whatever order their voxels are
stored in.

A layer made here carries its scan in `metadata["meduet"]["scan"]`; where a model made the voxels, the rest of
that dictionary says how. Going back honours what the user changed since: data, scale, translation, rotation,
shear and affine.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.transforms import Affine

from napari_meduet.errors import InputError
from napari_meduet.gui.io.intensity_windows import default_limits
from napari_meduet.pipelines.segmentation.label_statistics import voxel_volume_ml
from napari_meduet.volumes import checks
from napari_meduet.volumes.volume import UNITS, Volume

if TYPE_CHECKING:
    from napari.layers import Layer

KEY = "meduet"  # in layer.metadata
AXIS_LABELS = ("z", "y", "x")
DIFFERENCE = {"kind": "difference"}  # what such a layer carries instead of a scan
SEGMENTATION = "segmentation"  # the kind of provenance that labels made by a model have
LAYER_UNITS = ("mm", "mm", "mm")

LayerData = tuple[np.ndarray, dict[str, Any], str]

_REVERSE_AXES = np.eye(4)[[2, 1, 0, 3]]  # (x, y, z, 1) <-> (z, y, x, 1)
_RAS_TO_LPI = np.diag([-1.0, -1.0, -1.0, 1.0])
_NEGLIGIBLE_TILT = (
    1e-4  # of a column's length; below it napari would warn of slicing that is exact for any eye
)


def layer_matrix(affine: np.ndarray) -> np.ndarray:
    """The layer's data-to-world matrix for a voxel-to-RAS affine."""
    return _RAS_TO_LPI @ _REVERSE_AXES @ affine @ _REVERSE_AXES


def ras_affine(matrix: np.ndarray) -> np.ndarray:
    """The voxel-to-RAS affine for a layer's data-to-world matrix; inverse of `layer_matrix`."""
    return _REVERSE_AXES @ _RAS_TO_LPI @ matrix @ _REVERSE_AXES


def to_layer_array(voxels: np.ndarray) -> np.ndarray:
    """(X, Y, Z) voxels as a layer orders them; a view."""
    return voxels.transpose(2, 1, 0)


to_voxels = to_layer_array  # reversing three axes twice changes nothing


def image_layer(volume: Volume, name: str) -> LayerData:
    """A scan as an Image layer in its own unit, with colour limits that suit it."""
    data = to_layer_array(_shown(volume))
    look = {"contrast_limits": default_limits(data, volume), "interpolation2d": "linear"}
    return data, _state(volume, name) | look, "image"


def labels_layer(volume: Volume, name: str) -> LayerData:
    """A segmentation as a Labels layer; the array is a copy, since labels are there to be painted on."""
    names = known_names(volume.synthetic or {})
    named = {"features": name_features({0: "background"} | names)} if names else {}
    return to_layer_array(volume.voxels).copy(), _state(volume, name) | named, "labels"


def known_names(record: Mapping[str, Any]) -> dict[int, str]:
    """What the provenance of a segmentation calls its labels; nothing where it is of something else."""
    labels = record.get("labels")
    if not isinstance(labels, Mapping):
        return {}
    return {int(label): str(name) for label, name in labels.items() if str(label).isdecimal()}


def name_features(names: Mapping[int, str]) -> dict[str, np.ndarray]:
    """The feature table of a layer whose labels have these names; napari shows them under the mouse."""
    return {"index": np.array(list(names), int), "name": np.array(list(names.values()), object)}


def empty_labels(layer: "Layer", name: str) -> LayerData:
    """Labels without a label on the voxels of another layer, to be painted."""
    data, state, _ = layer.as_layer_data_tuple()
    place = ("affine", "scale", "translate", "rotate", "shear", "units", "axis_labels")
    return np.zeros(data.shape, np.uint8), {"name": name, **{part: state[part] for part in place}}, "labels"


def _state(volume: Volume, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "affine": _drawn_matrix(volume.affine),
        "units": LAYER_UNITS,
        "axis_labels": AXIS_LABELS,
        "metadata": {KEY: {**(volume.synthetic or {}), "scan": volume}},
    }


def _drawn_matrix(affine: np.ndarray) -> np.ndarray:
    """`layer_matrix` without tilts too small to see."""
    matrix = layer_matrix(affine)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    matrix[:3, :3][np.abs(matrix[:3, :3]) < _NEGLIGIBLE_TILT * lengths] = 0.0
    return matrix


def _shown(volume: Volume) -> np.ndarray:
    """What the layer shows: stored voxels where they already are in the scan's unit, else their values.

    Read-only, because an array changed in place would no longer be the scan its hash names.
    """
    is_plain = volume.slope == 1 and volume.intercept == 0
    shown = volume.voxels.view() if is_plain else volume.values()
    shown.flags.writeable = False
    return shown


def scan_of(layer: "Layer") -> Volume:
    """The scan a layer shows, with the user's changes to it.

    Raises:
        InputError: the layer is no scan: not three-dimensional, RGB, multiscale or without a usable geometry.
    """
    data, state, _ = layer.as_layer_data_tuple()
    return volume_of(data, state)


def scan_later(layer: "Layer") -> Callable[[], Volume]:
    """What `scan_of` says of a layer as it is now, to be called on another thread, and raises it there."""
    data, state, _ = layer.as_layer_data_tuple()
    return partial(volume_of, data, state)


def volume_of(data: Any, state: Mapping[str, Any]) -> Volume:
    """The scan behind a layer's data and state, as napari hands them to a writer."""
    voxels = _voxels(data, state)
    matrix = _data_to_world(state) * _mm_per_unit(state)
    base = state.get("metadata", {}).get(KEY, {}).get("scan")
    if base is None:
        return _judged(_foreign_scan(voxels, ras_affine(matrix), state), state)
    scan = _with_voxels(base, voxels)
    if not np.array_equal(matrix, _drawn_matrix(base.affine)):
        scan = replace(scan, affine=ras_affine(matrix))
    return scan if scan is base else _judged(scan, state)


def is_scan(layer: "Layer") -> bool:
    """Whether a layer can be taken for a scan."""
    is_grey_volume = isinstance(layer, Image) and not layer.rgb and not layer.multiscale and layer.ndim == 3
    return is_grey_volume and layer.metadata.get(KEY) != DIFFERENCE


def is_synthetic(layer: "Layer") -> bool:
    """Whether a model made the layer's voxels."""
    return bool(layer.metadata.get(KEY, {}).get("synthetic"))


def is_segmented(layer: "Layer") -> bool:
    """Whether a model made the layer's labels."""
    return isinstance(layer, Labels) and layer.metadata.get(KEY, {}).get("kind") == SEGMENTATION


def modality_of(layer: "Layer") -> str | None:
    """CT or MR, where the layer's scan says; None where its values would have to be guessed from."""
    scan = layer.metadata.get(KEY, {}).get("scan")
    return None if scan is None else scan.modality


def is_label_volume(layer: "Layer") -> bool:
    """Whether a layer can be taken for a segmentation of a scan."""
    return isinstance(layer, Labels) and layer.ndim == 3


def uppermost_scan(layers: "Sequence[Layer]") -> "Layer | None":
    """The first of the layers that no model made: the default choice where the uppermost comes first."""
    return next((layer for layer in layers if not is_synthetic(layer)), None)


def voxel_ml(layer: "Layer") -> float:
    """The volume of a voxel, in millilitres."""
    _, state, _ = layer.as_layer_data_tuple()
    matrix = _data_to_world(state) * _mm_per_unit(state)
    return voxel_volume_ml(matrix)


def share_grid(one: "Layer", other: "Layer") -> bool:
    """Whether two layers have the same voxels in the same places."""
    states = [layer.as_layer_data_tuple() for layer in (one, other)]
    shapes = [getattr(data, "shape", None) for data, _, _ in states]
    matrices = [_data_to_world(state) * _mm_per_unit(state) for _, state, _ in states]
    return shapes[0] == shapes[1] and np.allclose(*matrices, atol=1e-3)


def _voxels(data: Any, state: Mapping[str, Any]) -> np.ndarray:
    name = state["name"]
    if state.get("multiscale"):
        raise InputError(f"Layer {name!r} holds several resolutions; open one of them as a layer of its own.")
    if state.get("rgb"):
        raise InputError(f"Layer {name!r} is a colour image; a scan has one value in each voxel.")
    if len(data.shape) != 3:
        raise InputError(
            f"Layer {name!r} has {len(data.shape)} dimensions; a scan has 3. Open one volume of it."
        )
    return to_voxels(np.asarray(data))


def _judged(scan: Volume, state: Mapping[str, Any]) -> Volume:
    """The scan, if it passes what `volumes` asks of every scan it reads."""
    name, voxels = f"Layer {state['name']!r}", scan.voxels
    if voxels.dtype.kind not in "iuf":
        raise InputError(f"{name} holds {voxels.dtype} values; a scan holds whole or real numbers.")
    doubts = checks.check_affine(name, "its affine", scan.affine, voxels.shape)
    low, high = checks.value_range(name, voxels, scan.slope, scan.intercept)
    doubts += checks.doubtful_values(low, high, scan.modality)
    new = tuple(doubt for doubt in doubts if doubt not in scan.warnings)
    return replace(scan, warnings=scan.warnings + new)


def _data_to_world(state: Mapping[str, Any]) -> np.ndarray:
    own = Affine(**{part: state[part] for part in ("scale", "translate", "rotate", "shear")}, ndim=3)
    return state["affine"] @ own.affine_matrix


def _mm_per_unit(state: Mapping[str, Any]) -> np.ndarray:
    """Millimetres per world unit, as a column; 1 where the layer does not say (napari calls that pixel)."""
    factors = [
        (1.0 * unit).to("mm").magnitude if unit.is_compatible_with("mm") else 1.0 for unit in state["units"]
    ]
    return np.array([*factors, 1.0])[:, None]


def _with_voxels(base: Volume, voxels: np.ndarray) -> Volume:
    """The base scan with what its layer shows now."""
    shown = _shown(base)
    if voxels.shape == shown.shape and np.array_equal(voxels, shown):
        return base
    changed = replace(base, voxels=voxels, slope=1.0, intercept=0.0, sha256=_digest(voxels))
    fits = voxels.shape == shown.shape and np.can_cast(voxels.dtype, shown.dtype, "same_kind")
    if fits and np.isfinite(voxels).all():
        return replace(base.with_values(voxels), sha256=changed.sha256)
    return changed


def _foreign_scan(voxels: np.ndarray, affine: np.ndarray, state: Mapping[str, Any]) -> Volume:
    """A scan from a layer that another reader or a script made."""
    modality, guess = checks.guess_modality(voxels, slope=1.0, intercept=0.0)
    doubts = [guess]
    if not all(unit.is_compatible_with("mm") for unit in state["units"]):
        doubts.append("The layer has no physical units; a world unit was taken for 1 mm.")
    return Volume(
        voxels=voxels,
        affine=affine,
        modality=modality,
        unit=UNITS[modality],
        warnings=tuple(doubts),
        sha256=_digest(voxels),
    )


def _digest(voxels: np.ndarray) -> str:
    """Of the voxels alone: this scan is in no file."""
    return hashlib.sha256(np.ascontiguousarray(voxels).tobytes()).hexdigest()

"""Convert scans to napari layers and back. Only this file knows napari's axis order and world coordinates.

A layer holds a (Z, Y, X) array. Its world axes point towards inferior, posterior and left in millimetres, the
negative of RAS. With napari's default camera this gives radiological slices and a 3-D view that is not
mirrored. The layer's matrix comes from the file's affine, so scans of one patient overlay correctly.

Files store voxels in any of 48 axis orders. napari cannot draw a layer in 2-D whose matrix permutes the axes,
so a
layer shows the voxels in the order closest to RAS: a view with swapped and flipped axes, without resampling.
The way back to a scan restores the stored order.

A layer made here stores its scan in `metadata["meduet"]["scan"]`. Where a model made the voxels, the rest of
that dictionary is their provenance. The conversion back to a scan includes the user's later changes to data,
scale, translation, rotation, shear and affine.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from napari.layers import Image, Labels
from napari.utils.transforms import Affine

from napari_meduet.errors import InputError
from napari_meduet.gui.common.label_features import name_features
from napari_meduet.gui.io.intensity_windows import default_limits
from napari_meduet.pipelines.segmentation.label_statistics import voxel_volume_ml
from napari_meduet.volumes import checks
from napari_meduet.volumes.volume import UNITS, Volume

if TYPE_CHECKING:
    from napari.layers import Layer

KEY = "meduet"  # in layer.metadata
STORED_AXES = "meduet_stored_axes"  # in layer.metadata: nibabel orientation of the stored voxels
AXIS_LABELS = ("z", "y", "x")
DIFFERENCE = {"kind": "difference"}  # metadata of a difference layer, which has no scan
SEGMENTATION = "segmentation"  # `kind` in the provenance of labels made by a model
LAYER_UNITS = ("mm", "mm", "mm")

LayerData = tuple[np.ndarray, dict[str, Any], str]

_REVERSE_AXES = np.eye(4)[[2, 1, 0, 3]]  # (x, y, z, 1) <-> (z, y, x, 1)
_RAS_TO_LPI = np.diag([-1.0, -1.0, -1.0, 1.0])
_RAS_AXES = nib.orientations.axcodes2ornt("RAS")
_NEGLIGIBLE_TILT = 1e-4  # of a column's length; napari warns about non-orthogonal slicing at any tilt


def layer_matrix(affine: np.ndarray) -> np.ndarray:
    """Return the layer's data-to-world matrix for a voxel-to-RAS affine."""
    return _RAS_TO_LPI @ _REVERSE_AXES @ affine @ _REVERSE_AXES


def ras_affine(matrix: np.ndarray) -> np.ndarray:
    """Return the voxel-to-RAS affine for a layer's data-to-world matrix. Inverse of `layer_matrix`."""
    return _REVERSE_AXES @ _RAS_TO_LPI @ matrix @ _REVERSE_AXES


def to_layer_array(voxels: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return stored voxels (X, Y, Z) as a layer's array (Z, Y, X): a view in the order closest to RAS.

    Args:
        axes: Orientation of the stored voxels (3, 2), as `nibabel.orientations.io_orientation` returns it.
    """
    return nib.orientations.apply_orientation(voxels, axes).transpose(2, 1, 0)


def to_stored_voxels(data: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return a layer's array as voxels (X, Y, Z) in their stored order. Inverse of `to_layer_array`."""
    return nib.orientations.apply_orientation(data.transpose(2, 1, 0), _inverse(axes))


def labels_on(labels: "Layer", scan: "Layer") -> np.ndarray:
    """Return the voxels of a Labels layer in the stored order of a scan's layer on the same grid."""
    stored = to_stored_voxels(np.asarray(labels.data), _axes_in(scan.metadata))
    return np.ascontiguousarray(stored)


def image_layer(volume: Volume, name: str) -> LayerData:
    """Return an Image layer of a scan in the scan's unit, with default contrast limits."""
    data = to_layer_array(_shown(volume), _axes_of(volume.affine))
    display = {"contrast_limits": default_limits(data, volume), "interpolation2d": "linear"}
    return data, _state(volume, name) | display, "image"


def labels_layer(volume: Volume, name: str) -> LayerData:
    """Return a Labels layer of a segmentation. Its array is a copy, because the user may paint on it."""
    names = known_names(volume.synthetic or {})
    named = {"features": name_features({0: "background"} | names)} if names else {}
    return (
        to_layer_array(volume.voxels, _axes_of(volume.affine)).copy(),
        _state(volume, name) | named,
        "labels",
    )


def known_names(record: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of labels in a provenance record; empty if it is not of a segmentation."""
    labels = record.get("labels")
    if not isinstance(labels, Mapping):
        return {}
    return {int(label): str(name) for label, name in labels.items() if str(label).isdecimal()}


def empty_labels(layer: "Layer", name: str) -> LayerData:
    """Return an empty Labels layer on the voxel grid of another layer, to be saved in its stored order."""
    data, state, _ = layer.as_layer_data_tuple()
    geometry = ("affine", "scale", "translate", "rotate", "shear", "units", "axis_labels")
    metadata = {STORED_AXES: _axes_in(state["metadata"])}
    own = {"name": name, "metadata": metadata} | {key: state[key] for key in geometry}
    return np.zeros(data.shape, np.uint8), own, "labels"


def _state(volume: Volume, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "affine": _drawn_matrix(volume),
        "units": LAYER_UNITS,
        "axis_labels": AXIS_LABELS,
        "metadata": {
            KEY: {**(volume.synthetic or {}), "scan": volume},
            STORED_AXES: _axes_of(volume.affine),
        },
    }


def _axes_of(affine: np.ndarray) -> np.ndarray:
    """Return the RAS axis and the direction of each stored axis (3, 2) of voxels with this affine."""
    return nib.orientations.io_orientation(affine)


def _axes_in(metadata: Mapping[str, Any]) -> np.ndarray:
    """Return the stored orientation in a layer's metadata; RAS for a layer that was made elsewhere."""
    return metadata.get(STORED_AXES, _RAS_AXES)


def _inverse(axes: np.ndarray) -> np.ndarray:
    """Return the orientation that undoes `axes`."""
    return nib.orientations.ornt_transform(_RAS_AXES, axes)


def _drawn_matrix(volume: Volume) -> np.ndarray:
    """Return the layer's matrix for a volume, without invisibly small tilts."""
    to_stored_index = nib.orientations.inv_ornt_aff(_axes_of(volume.affine), volume.voxels.shape)
    matrix = layer_matrix(volume.affine @ to_stored_index)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    matrix[:3, :3][np.abs(matrix[:3, :3]) < _NEGLIGIBLE_TILT * lengths] = 0.0
    return matrix


def _shown(volume: Volume) -> np.ndarray:
    """Return the array that the layer shows: stored voxels that are in the scan's unit, or else the values.

    The array is read-only: after a change in place, the scan's hash would be wrong.
    """
    is_plain = volume.slope == 1 and volume.intercept == 0
    shown = volume.voxels.view() if is_plain else volume.values()
    shown.flags.writeable = False
    return shown


def scan_of(layer: "Layer") -> Volume:
    """Return the scan that a layer shows, with the user's changes.

    Raises:
        InputError: The layer is not a scan: it is not three-dimensional, or it is RGB or multiscale, or its
            geometry is not usable.
    """
    data, state, _ = layer.as_layer_data_tuple()
    return volume_of(data, state)


def scan_later(layer: "Layer") -> Callable[[], Volume]:
    """Return a function that returns `scan_of` the layer's current state. It may run on another thread."""
    data, state, _ = layer.as_layer_data_tuple()
    return partial(volume_of, data, state)


def volume_of(data: Any, state: Mapping[str, Any]) -> Volume:
    """Return the scan of a layer's data and state, in the form that napari passes to a writer."""
    metadata = state.get("metadata", {})
    axes = _axes_in(metadata)
    voxels = _voxels(data, state, axes)
    matrix = _data_to_world(state) * _mm_per_unit(state)
    affine = ras_affine(matrix) @ nib.orientations.inv_ornt_aff(_inverse(axes), np.shape(data)[::-1])
    base = metadata.get(KEY, {}).get("scan")
    if base is None:
        return _checked(_foreign_scan(voxels, affine, state), state)
    scan = _with_voxels(base, voxels)
    if not np.array_equal(matrix, _drawn_matrix(base)):
        scan = replace(scan, affine=affine)
    return scan if scan is base else _checked(scan, state)


def is_scan(layer: "Layer") -> bool:
    """Whether a layer can be used as a scan."""
    is_grey_volume = isinstance(layer, Image) and not layer.rgb and not layer.multiscale and layer.ndim == 3
    return is_grey_volume and layer.metadata.get(KEY) != DIFFERENCE


def is_synthetic(layer: "Layer") -> bool:
    """Whether a model made the layer's voxels."""
    return bool(layer.metadata.get(KEY, {}).get("synthetic"))


def is_original_scan(layer: "Layer") -> bool:
    """Whether a layer can be used as a scan and no model made its voxels."""
    return is_scan(layer) and not is_synthetic(layer)


def is_segmented(layer: "Layer") -> bool:
    """Whether a model made the layer's labels."""
    return isinstance(layer, Labels) and layer.metadata.get(KEY, {}).get("kind") == SEGMENTATION


def modality_of(layer: "Layer") -> str | None:
    """Return the modality, CT or MR, of the layer's scan; None for a layer without a scan."""
    scan = layer.metadata.get(KEY, {}).get("scan")
    return None if scan is None else scan.modality


def is_label_volume(layer: "Layer") -> bool:
    """Whether a layer can be used as a segmentation of a scan."""
    return isinstance(layer, Labels) and layer.ndim == 3


def uppermost_scan(layers: "Sequence[Layer]") -> "Layer | None":
    """Return the first layer that no model made; None if there is none. Pass the uppermost layer first."""
    return next((layer for layer in layers if not is_synthetic(layer)), None)


def layer_voxel_ml(layer: "Layer") -> float:
    """Return the volume of one voxel of a layer, in millilitres."""
    _, state, _ = layer.as_layer_data_tuple()
    matrix = _data_to_world(state) * _mm_per_unit(state)
    return voxel_volume_ml(matrix)


def share_grid(one: "Layer", other: "Layer") -> bool:
    """Whether two layers have the same voxel grid."""
    states = [layer.as_layer_data_tuple() for layer in (one, other)]
    shapes = [getattr(data, "shape", None) for data, _, _ in states]
    matrices = [_data_to_world(state) * _mm_per_unit(state) for _, state, _ in states]
    return shapes[0] == shapes[1] and np.allclose(*matrices, atol=1e-3)


def _voxels(data: Any, state: Mapping[str, Any], axes: np.ndarray) -> np.ndarray:
    name = state["name"]
    if state.get("multiscale"):
        raise InputError(f"Layer {name!r} holds several resolutions; open one of them as a layer of its own.")
    if state.get("rgb"):
        raise InputError(f"Layer {name!r} is a colour image; a scan has one value in each voxel.")
    if len(data.shape) != 3:
        raise InputError(
            f"Layer {name!r} has {len(data.shape)} dimensions; a scan has 3. Open one volume of it."
        )
    return to_stored_voxels(np.asarray(data), axes)


def _checked(scan: Volume, state: Mapping[str, Any]) -> Volume:
    """Return the scan with its warnings, after the checks that `volumes` makes on every file."""
    name, voxels = f"Layer {state['name']!r}", scan.voxels
    if voxels.dtype.kind not in "iuf":
        raise InputError(f"{name} holds {voxels.dtype} values; a scan holds whole or real numbers.")
    found = checks.check_affine(name, "its affine", scan.affine, voxels.shape)
    low, high = checks.value_range(name, voxels, scan.slope, scan.intercept)
    found += checks.doubtful_values(low, high, scan.modality)
    new = tuple(warning for warning in found if warning not in scan.warnings)
    return replace(scan, warnings=scan.warnings + new)


def _data_to_world(state: Mapping[str, Any]) -> np.ndarray:
    own = Affine(**{part: state[part] for part in ("scale", "translate", "rotate", "shear")}, ndim=3)
    return state["affine"] @ own.affine_matrix


def _mm_per_unit(state: Mapping[str, Any]) -> np.ndarray:
    """Return millimetres per world unit, as a column; 1 where the layer's unit is napari's pixel."""
    factors = [
        (1.0 * unit).to("mm").magnitude if unit.is_compatible_with("mm") else 1.0 for unit in state["units"]
    ]
    return np.array([*factors, 1.0])[:, None]


def _with_voxels(base: Volume, voxels: np.ndarray) -> Volume:
    """Return the base scan with the voxels that its layer shows now."""
    shown = _shown(base)
    if voxels.shape == shown.shape and np.array_equal(voxels, shown):
        return base
    voxels = np.ascontiguousarray(voxels)
    changed = replace(base, voxels=voxels, slope=1.0, intercept=0.0, sha256=_digest(voxels))
    fits = voxels.shape == shown.shape and np.can_cast(voxels.dtype, shown.dtype, "same_kind")
    if fits and np.isfinite(voxels).all():
        return replace(base.with_values(voxels), sha256=changed.sha256)
    return changed


def _foreign_scan(voxels: np.ndarray, affine: np.ndarray, state: Mapping[str, Any]) -> Volume:
    """Return a scan for a layer that another reader or a script made."""
    modality, guess = checks.guess_modality(voxels, slope=1.0, intercept=0.0)
    warnings = [guess]
    if not all(unit.is_compatible_with("mm") for unit in state["units"]):
        warnings.append("The layer has no physical units; its unit was taken as 1 mm.")
    return Volume(
        voxels=voxels,
        affine=affine,
        modality=modality,
        unit=UNITS[modality],
        warnings=tuple(warnings),
        sha256=_digest(voxels),
    )


def _digest(voxels: np.ndarray) -> str:
    """Return the SHA-256 of the voxels of a scan that has no file."""
    return hashlib.sha256(np.ascontiguousarray(voxels).tobytes()).hexdigest()

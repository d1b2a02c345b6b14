"""What every scan must satisfy, whatever file it came from (docs/reliability.md, section 1).

What is wrong raises an InputError that names the file and the field. What is merely doubtful comes back as
warnings, one sentence each, that travel with the volume.
"""

import math

import numpy as np
from numpy.typing import NDArray

from napari_meduet.errors import InputError, SeveralVolumes
from napari_meduet.volumes.volume import Modality

MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 20.0
MAX_EXTENT_MM = 3000.0
MAX_SHEAR_DEG = 0.1
MAX_USABLE_SHEAR_DEG = 45.0
MAX_ORIGIN_MM = 10_000.0  # no scanner room is larger
SPACING_TOLERANCE = 0.01
ANGLE_TOLERANCE_DEG = 1.0

AIR_OR_FAT_HU = (-3100.0, -40.0)  # from the padding around a scan to fat
MIN_AIR_OR_FAT = 0.02  # of a CT's voxels, even cropped to an organ; MR has hardly a negative voxel
HU_LIMITS = (-4096.0, 32767.0)
SAMPLE_STEP = 5

AXES = "XYZ"


def check_shape(name: str, field: str, shape: tuple[int, ...]) -> None:
    """Three axes of two voxels or more."""
    sizes = " x ".join(map(str, shape))
    if len(shape) < 3 or min(shape[:3]) < 2:
        raise InputError(
            f"{name}: {field} describes a two-dimensional image ({sizes}); a scan needs at least two voxels "
            "along each of three axes."
        )
    if len(shape) > 3:
        raise InputError(
            f"{name}: {field} describes an image of {len(shape)} dimensions ({sizes}); export one volume of "
            "it."
        )


def choose_volume(name: str, field: str, num_volumes: int, volume_index: int | None) -> int:
    """Which volume of a 4-D file to read: the only one, or the one asked for."""
    if volume_index is None:
        if num_volumes == 1:
            return 0
        raise SeveralVolumes(
            f"{name}: {field} says that it holds {num_volumes} volumes (4-D); choose one with volume_index "
            f"0 to {num_volumes - 1}.",
            num_volumes,
        )
    if not 0 <= volume_index < num_volumes:
        raise InputError(
            f"{name}: {field} says that it holds {num_volumes} volume{'s' * (num_volumes > 1)}; "
            f"volume_index must be 0 to {num_volumes - 1}, got {volume_index}."
        )
    return volume_index


def check_memory(name: str, shape: tuple[int, ...], itemsize: int, budget_bytes: int) -> None:
    """The voxels fit the budget. Nothing has been allocated yet."""
    needed = math.prod(shape) * itemsize
    if needed > budget_bytes:
        raise InputError(
            f"{name}: {' x '.join(map(str, shape))} voxels need {needed / 2**20:,.0f} MiB of memory, more "
            f"than the {budget_bytes / 2**20:,.0f} MiB allowed; crop or resample the scan first."
        )


def allocate(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory for voxels stored first axis fastest, (X, Y, Z)."""
    try:
        return np.empty(shape, dtype, order="F")
    except MemoryError as error:
        needed = math.prod(shape) * dtype.itemsize
        raise InputError(
            f"{name}: its voxels need {needed / 2**20:,.0f} MiB and the computer has not that much memory "
            "free."
        ) from error


def in_native_order(voxels: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order, swapped in place."""
    if voxels.dtype.isnative:
        return voxels
    return voxels.byteswap(inplace=True).view(voxels.dtype.newbyteorder("="))


def leftovers(trailing: int) -> list[str]:
    """The warning about bytes after the voxels, if there are any."""
    if trailing == 0:
        return []
    return [f"{trailing:,} bytes follow the voxels that the header declares; they were ignored."]


def check_affine(name: str, field: str, affine: NDArray[np.float64], shape: tuple[int, ...]) -> list[str]:
    """The voxels lie in the patient: finite, of a possible size, not flat. Returns what is doubtful."""
    if not np.isfinite(affine).all():
        raise InputError(f"{name}: {field} contains NaN or infinity; the scan has no place in the patient.")
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    for axis, size, step in zip(AXES, shape, spacing, strict=True):
        check_spacing(name, field, axis, step)
        if step * size > MAX_EXTENT_MM:
            raise InputError(
                f"{name}: {field} makes the scan {step * size / 1000:.1f} m long along {axis}; at most "
                f"{MAX_EXTENT_MM / 1000:.0f} m is possible."
            )
    directions = axes / spacing
    cosines = np.abs([directions[:, i] @ directions[:, j] for i, j in ((0, 1), (0, 2), (1, 2))])
    shear_deg = float(np.degrees(np.arcsin(np.clip(cosines, 0, 1)).max()))
    if abs(np.linalg.det(directions)) < 1e-3 or shear_deg > MAX_USABLE_SHEAR_DEG:
        raise InputError(
            f"{name}: {field} is singular or nearly so: two voxel axes run in the same direction "
            f"({90 - shear_deg:.0f} degrees apart)."
        )
    warnings = []
    if shear_deg > MAX_SHEAR_DEG:
        warnings.append(
            f"{field}: the voxel axes are {shear_deg:.1f} degrees from perpendicular (gantry tilt or a "
            "sheared affine); results keep this grid exactly, but the model was trained on perpendicular "
            "ones."
        )
    corner = np.abs(affine[:3, 3]).max()
    if corner > MAX_ORIGIN_MM:
        warnings.append(f"{field}: the first voxel lies {corner / 1000:,.0f} m from the origin.")
    return warnings


def check_spacing(name: str, field: str, axis: str, step: float) -> None:
    """A voxel size that a scanner can have."""
    if not np.isfinite(step) or not MIN_SPACING_MM <= step <= MAX_SPACING_MM:
        raise InputError(
            f"{name}: {field} gives a voxel spacing of {step:g} mm along {axis}; between {MIN_SPACING_MM} "
            f"and {MAX_SPACING_MM:.0f} mm is possible. Check the file's units."
        )


def disagreements(
    name_a: str, a: NDArray[np.float64], name_b: str, b: NDArray[np.float64], shape: tuple[int, ...]
) -> list[str]:
    """How two descriptions of the same grid contradict each other; the first is the one in use."""
    spacing_a, spacing_b = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (a, b))
    if not np.isfinite(b).all() or (spacing_b == 0).any():
        return [f"{name_b} cannot be used; {name_a} is used."]
    found = []
    if np.linalg.det(a[:3, :3]) * np.linalg.det(b[:3, :3]) < 0:
        found.append(
            f"{name_a} and {name_b} are MIRRORED against each other: left and right may be swapped. "
            f"{name_a} is used; compare with the patient's other images before you trust any side."
        )
    if np.any(np.abs(spacing_a - spacing_b) > SPACING_TOLERANCE * spacing_a):
        found.append(
            f"{name_a} and {name_b} disagree on the voxel spacing ({triple(spacing_a)} against "
            f"{triple(spacing_b)} mm); {name_a} is used."
        )
    elif not found:
        directions = np.einsum("ij,ij->j", a[:3, :3] / spacing_a, b[:3, :3] / spacing_b)
        angle = float(np.degrees(np.arccos(np.clip(directions, -1, 1))).max())
        centre = np.append((np.array(shape) - 1) / 2, 1)
        shift = float(np.linalg.norm(((a - b) @ centre)[:3]))
        if angle > ANGLE_TOLERANCE_DEG:
            found.append(
                f"{name_a} and {name_b} disagree on the orientation by {angle:.0f} degrees; {name_a} is used."
            )
        elif shift > spacing_a.max():
            found.append(f"{name_a} and {name_b} place the scan {shift:.1f} mm apart; {name_a} is used.")
    return found


def triple(numbers: NDArray[np.float64]) -> str:
    """Three lengths for a message."""
    return " x ".join(f"{number:.4g}" for number in numbers)


def value_range(name: str, voxels: np.ndarray, slope: float, intercept: float) -> tuple[float, float]:
    """The smallest and largest value; an InputError unless every value is finite."""
    low, high = voxels.min(), voxels.max()  # NaN passes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = np.count_nonzero(~np.isfinite(voxels))
        raise InputError(
            f"{name}: {bad:,} of {voxels.size:,} voxels ({100 * bad / voxels.size:.2g} %) are NaN or "
            "infinite; replace them (in CT by air, -1000) and try again."
        )
    ends = sorted((float(low) * slope + intercept, float(high) * slope + intercept))
    largest = max(abs(number) for number in (float(low), float(high), *ends))
    if not largest <= float(np.finfo(np.float32).max):
        raise InputError(
            f"{name}: its values run to {largest:.3g}, beyond what 32-bit numbers hold; check the slope "
            "(scl_slope) and the voxels."
        )
    return ends[0], ends[1]


def guess_modality(voxels: np.ndarray, slope: float, intercept: float) -> tuple[Modality, str]:
    """CT if a fair share of voxels has the HU of air, lung or fat, else MR; and the warning that says so."""
    sample = voxels[::SAMPLE_STEP, ::SAMPLE_STEP, ::SAMPLE_STEP].astype(np.float64) * slope + intercept
    share = np.mean((sample >= AIR_OR_FAT_HU[0]) & (sample <= AIR_OR_FAT_HU[1]))
    if share >= MIN_AIR_OR_FAT:
        return "CT", "The file does not name its modality; its values look like CT (Hounsfield units)."
    return "MR", (
        "The file does not name its modality; its values do not look like CT in Hounsfield units, so it is "
        "taken for MR."
    )


def doubtful_values(low: float, high: float, modality: Modality) -> list[str]:
    """What is implausible about the values of a scan of that modality."""
    if low == high:
        return [f"Every voxel is {low:g}: the scan is empty."]
    if modality == "MR":
        return []
    found = []
    if low < HU_LIMITS[0] or high > HU_LIMITS[1]:
        found.append(
            f"The values run from {low:g} to {high:g}, beyond any Hounsfield scale; check slope and "
            "intercept."
        )
    if low >= 0:
        found.append(
            f"No value is below 0 (the lowest is {low:g}): in Hounsfield units air is -1000, so the rescale "
            "intercept may be missing."
        )
    if high < -500:
        found.append(f"No value is above {high:g} HU: there is only air.")
    return found

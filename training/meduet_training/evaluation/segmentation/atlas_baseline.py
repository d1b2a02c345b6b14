"""The classes of a scan by registration: what a person with one labelled scan would try before any network.

A labelled scan (the atlas) is laid over the new one: moved to where it correlates best, then turned, scaled
and sheared, then bent by cubic B-splines, each step on coarse copies. Its labels come along. Where several
atlases cover a voxel, they vote on each class that they know.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.processing import resample_from_to

from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.volumes.preparation import WorkingGrid

PLACING_SHRINK, BENDING_SHRINK = 7, 4  # working voxels, to a side, that become one
SMALLEST_OVERLAP = 0.2  # of the smaller scan: body regions may hardly meet
BINS = 32  # of mutual information
NUM_POINTS = 15_000  # at which it is measured
SEED = 1  # of the points' jitter; ITK takes the clock otherwise
AFFINE_STEPS, BENDING_STEPS = 60, 20
KNOTS_MM = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """A labelled scan on its working grid.

    Attributes:
        units: (X, Y, Z), in profile units.
        classes: (X, Y, Z), `IGNORED` where nobody looked.
        annotated: of each class.
    """

    units: np.ndarray
    classes: np.ndarray
    annotated: tuple[bool, ...]


def atlas_classes(
    units: np.ndarray, grid: WorkingGrid, spacing_mm: float, atlases: Sequence[Atlas]
) -> np.ndarray:
    """The class of each voxel of a scan, on its own grid, uint8.

    Args:
        units: (X, Y, Z) of the scan on its working grid.
        spacing_mm: of the working grids.
        atlases: one or more, of the scan's own modality and sequence.
    """
    fixed = _image(units, spacing_mm)
    votes = np.zeros((len(atlases[0].annotated), *units.shape), np.uint8)
    voters = np.zeros_like(votes)
    for atlas in atlases:
        moving = _image(atlas.units, spacing_mm)
        start = _placed(fixed, moving)
        try:
            found = _registered(fixed, moving, start)
        except RuntimeError:  # ITK gives up where too few points meet
            found = start
        warped = _warped(fixed, atlas.classes, found, spacing_mm)
        for number in np.flatnonzero(atlas.annotated):
            votes[number] += warped == number
            voters[number] += warped != IGNORED
    share = np.divide(votes, voters, out=np.zeros(votes.shape, np.float32), where=voters > 0)
    share[0] = 0.5  # half of those who can tell must agree
    return _on_native(share.argmax(axis=0).astype(np.uint8), grid)


def _image(volume: np.ndarray, spacing_mm: float) -> sitk.Image:
    """A working volume with its first voxel at 0; all working grids run alike (RAS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.T))
    image.SetSpacing([spacing_mm] * 3)
    return image


def _placed(fixed: sitk.Image, moving: sitk.Image) -> sitk.AffineTransform:
    """The shift, from fixed to moving, that correlates best of all."""
    one, other = (sitk.BinShrink(image, [PLACING_SHRINK] * 3) for image in (fixed, moving))
    whole, other_whole = (sitk.Cast(image * 0 + 1, sitk.sitkFloat32) for image in (one, other))
    found = sitk.GetArrayFromImage(
        sitk.MaskedFFTNormalizedCorrelation(one, other, whole, other_whole, 0, SMALLEST_OVERLAP)
    )
    best = np.unravel_index(found.argmax(), found.shape)
    # Voxel k of the correlation lays the last voxel of moving on voxel k of fixed.
    steps = [int(place) - (length - 1) for place, length in zip(best[::-1], other.GetSize(), strict=True)]
    shift = sitk.AffineTransform(3)
    shift.SetTranslation([-step * spacing for step, spacing in zip(steps, one.GetSpacing(), strict=True)])
    return shift


def _registered(fixed: sitk.Image, moving: sitk.Image, start: sitk.AffineTransform) -> sitk.Transform:
    """From places in fixed to places in moving: affine, then bent."""
    one, other = (sitk.BinShrink(image, [BENDING_SHRINK] * 3) for image in (fixed, moving))
    one = _where_both_are(one, other, start)
    affine = sitk.AffineTransform(start)
    affine.SetCenter(
        [length * step / 2 for length, step in zip(one.GetSize(), one.GetSpacing(), strict=True)]
    )
    method = _method(one)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, AFFINE_STEPS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(one, other)

    knots = [
        max(2, round(length * step / KNOTS_MM))
        for length, step in zip(one.GetSize(), one.GetSpacing(), strict=True)
    ]
    bent = sitk.BSplineTransformInitializer(one, knots, 3)
    method = _method(one)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(1e-5, BENDING_STEPS, maximumNumberOfFunctionEvaluations=2 * BENDING_STEPS)
    method.SetInitialTransform(bent, inPlace=True)
    method.Execute(one, other)
    return sitk.CompositeTransform([affine, bent])


def _method(fixed: sitk.Image) -> sitk.ImageRegistrationMethod:
    """Mutual information, since an MR has no unit and contrast agent brightens a CT."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, NUM_POINTS / fixed.GetNumberOfPixels()), seed=SEED)
    method.SetNumberOfThreads(1)  # sums of several threads differ from run to run, and so would the table
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _where_both_are(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Image:
    """The box of fixed that moving covers."""
    covered = sitk.Resample(moving * 0 + 1, fixed, start, sitk.sitkNearestNeighbor, 0.0)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(covered, sitk.sitkUInt8))
    box = shape.GetBoundingBox(1)
    return sitk.RegionOfInterest(fixed, box[3:], box[:3])


def _warped(fixed: sitk.Image, classes: np.ndarray, found: sitk.Transform, spacing_mm: float) -> np.ndarray:
    """The atlas's classes on the grid of fixed; `IGNORED` where it does not reach."""
    image = _image(classes, spacing_mm)
    warped = sitk.Resample(image, fixed, found, sitk.sitkNearestNeighbor, IGNORED)
    return sitk.GetArrayFromImage(warped).T


def _on_native(working: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """Labels of the working grid on the scan's own: that of the nearest voxel."""
    image = nib.Nifti1Image(working, grid.affine)
    native = resample_from_to(image, (grid.native_shape, grid.native_affine), order=0, mode="nearest")
    return np.asarray(native.dataobj).astype(np.uint8)

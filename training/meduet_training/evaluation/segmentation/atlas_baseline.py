"""Segmentation by registration of labelled scans (atlases), a baseline without training.

An atlas is registered to the new scan: first by the translation with the best correlation, then by an affine
transform, then by cubic B-splines, all on downsampled copies. The transform is applied to its labels. Where
several atlases cover a voxel, they vote on each class that they know. methods.py beside this file chooses the
atlases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.processing import resample_from_to

from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.volumes.preparation import WorkingGrid

TRANSLATION_SHRINK, REGISTRATION_SHRINK = 7, 4  # downsampling of the working grid
MIN_OVERLAP = 0.2  # fraction of the smaller scan; body regions may overlap little
BINS = 32  # histogram bins of mutual information
NUM_POINTS = 15_000  # samples of mutual information
SEED = 1  # of the sample positions; without a seed ITK uses the clock
AFFINE_STEPS, SPLINE_STEPS = 60, 20
KNOTS_MM = 60.0  # distance of the spline knots


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """A labelled scan on its working grid.

    Attributes:
        values: (X, Y, Z), normalised intensity.
        classes: (X, Y, Z), class numbers; `IGNORED` where voxels have no label.
        annotated: whether each class is annotated.
    """

    values: np.ndarray
    classes: np.ndarray
    annotated: tuple[bool, ...]


def atlas_classes(
    values: np.ndarray, grid: WorkingGrid, spacing_mm: float, atlases: Sequence[Atlas]
) -> np.ndarray:
    """Return the class of each voxel of a scan, uint8, on the grid of the scan.

    Args:
        values: (X, Y, Z), normalised intensity of the scan on its working grid.
        grid: the working grid of the scan.
        spacing_mm: voxel spacing of the working grids.
        atlases: one or more atlases of the same modality and sequence as the scan.
    """
    fixed = _image(values, spacing_mm)
    votes = np.zeros((len(atlases[0].annotated), *values.shape), np.uint8)
    voters = np.zeros_like(votes)
    for atlas in atlases:
        moving = _image(atlas.values, spacing_mm)
        start = _translation(fixed, moving)
        try:
            transform = _registration(fixed, moving, start)
        except RuntimeError:  # ITK raises if too few samples overlap
            transform = start
        warped = _warped(fixed, atlas.classes, transform, spacing_mm)
        for number in np.flatnonzero(atlas.annotated):
            votes[number] += warped == number
            voters[number] += warped != IGNORED
    fraction = np.divide(votes, voters, out=np.zeros(votes.shape, np.float32), where=voters > 0)
    fraction[0] = 0.5  # a class needs half of the votes of the atlases that know it
    return _on_native(fraction.argmax(axis=0).astype(np.uint8), grid)


def _image(volume: np.ndarray, spacing_mm: float) -> sitk.Image:
    """Return a volume of a working grid as an image with origin 0; all working grids are in RAS order."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.T))
    image.SetSpacing([spacing_mm] * 3)
    return image


def _translation(fixed: sitk.Image, moving: sitk.Image) -> sitk.AffineTransform:
    """Return the translation from fixed to moving with the best correlation."""
    one, other = (sitk.BinShrink(image, [TRANSLATION_SHRINK] * 3) for image in (fixed, moving))
    mask, other_mask = (sitk.Cast(image * 0 + 1, sitk.sitkFloat32) for image in (one, other))
    correlation = sitk.GetArrayFromImage(
        sitk.MaskedFFTNormalizedCorrelation(one, other, mask, other_mask, 0, MIN_OVERLAP)
    )
    best = np.unravel_index(correlation.argmax(), correlation.shape)
    # At voxel k of the correlation, the last voxel of moving is at voxel k of fixed.
    steps = [int(index) - (length - 1) for index, length in zip(best[::-1], other.GetSize(), strict=True)]
    translation = sitk.AffineTransform(3)
    translation.SetTranslation(
        [-step * spacing for step, spacing in zip(steps, one.GetSpacing(), strict=True)]
    )
    return translation


def _registration(fixed: sitk.Image, moving: sitk.Image, start: sitk.AffineTransform) -> sitk.Transform:
    """Return the transform from fixed to moving: an affine transform, followed by B-splines."""
    one, other = (sitk.BinShrink(image, [REGISTRATION_SHRINK] * 3) for image in (fixed, moving))
    one = _cropped_to_overlap(one, other, start)
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
    splines = sitk.BSplineTransformInitializer(one, knots, 3)
    method = _method(one)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(1e-5, SPLINE_STEPS, maximumNumberOfFunctionEvaluations=2 * SPLINE_STEPS)
    method.SetInitialTransform(splines, inPlace=True)
    method.Execute(one, other)
    return sitk.CompositeTransform([affine, splines])


def _method(fixed: sitk.Image) -> sitk.ImageRegistrationMethod:
    """Return a registration by mutual information, because MR has no unit and contrast agent changes CT."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, NUM_POINTS / fixed.GetNumberOfPixels()), seed=SEED)
    method.SetNumberOfThreads(1)  # the sums of several threads differ between runs
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _cropped_to_overlap(fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform) -> sitk.Image:
    """Crop the fixed image to the box that the moving image covers."""
    covered = sitk.Resample(moving * 0 + 1, fixed, start, sitk.sitkNearestNeighbor, 0.0)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(covered, sitk.sitkUInt8))
    box = shape.GetBoundingBox(1)
    return sitk.RegionOfInterest(fixed, box[3:], box[:3])


def _warped(
    fixed: sitk.Image, classes: np.ndarray, transform: sitk.Transform, spacing_mm: float
) -> np.ndarray:
    """Return the classes of an atlas on the grid of the fixed image; `IGNORED` outside the atlas."""
    image = _image(classes, spacing_mm)
    warped = sitk.Resample(image, fixed, transform, sitk.sitkNearestNeighbor, IGNORED)
    return sitk.GetArrayFromImage(warped).T


def _on_native(working: np.ndarray, grid: WorkingGrid) -> np.ndarray:
    """Resample labels of the working grid to the grid of the scan, by the nearest voxel."""
    image = nib.Nifti1Image(working, grid.affine)
    native = resample_from_to(image, (grid.native_shape, grid.native_affine), order=0, mode="nearest")
    return np.asarray(native.dataobj).astype(np.uint8)

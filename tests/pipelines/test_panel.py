"""The picture of a swap is anatomically right: radiological sides, physical aspect, any voxel order."""

import nibabel as nib
import numpy as np
import pytest

from napari_meduet.pipelines.style_swap.panel import PIXEL_MM, _axial, _grey, swap_panel
from napari_meduet.volumes.volume import Volume


def marked(order: str = "RAS", modality: str = "CT") -> Volume:
    """A grey block, 60 x 40 x 30 mm, with a bright corner at the patient's front right."""
    values = np.full((30, 40, 10), 0, np.int16)  # 2 x 1 x 3 mm
    values[24:, 34:, :] = 200
    image = nib.Nifti1Image(values, np.diag([2.0, 1.0, 3.0, 1.0]))
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(order)
        )
    )
    return Volume(
        voxels=np.asarray(turned.dataobj),
        affine=turned.affine,
        modality=modality,
        unit="HU" if modality == "CT" else "arbitrary",
        sha256="0" * 64,
    )


@pytest.mark.parametrize("order", ["RAS", "LPS", "SPR", "AIL"])
def test_the_patients_right_is_on_the_left_and_the_front_is_up(order):
    picture = _grey(_axial(marked(order)), (-160.0, 240.0))
    width, height = picture.size
    assert (width * PIXEL_MM, height * PIXEL_MM) == pytest.approx((60, 40), abs=1.0)
    assert picture.getpixel((2, 2))[0] > picture.getpixel((width - 3, 2))[0]
    assert picture.getpixel((2, 2))[0] > picture.getpixel((2, height - 3))[0]


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_panel_shows_what_changed_and_nothing_else(modality):
    content = marked(modality=modality)
    values = content.values()
    values[:6, :6] += 150.0  # back left
    panel = np.asarray(swap_panel(content, content, content.with_values(values), "title", "footer"), float)
    same = np.asarray(swap_panel(content, content, content, "title", "footer"), float)
    differs = np.argwhere(np.abs(panel - same).sum(axis=2) > 30)
    columns = panel.shape[1]
    assert len(differs)
    assert differs[:, 1].min() > columns / 3  # content and style, the first two of four, stay as they are
    orange = (panel[..., 0] > 150) & (panel[..., 2] < 120)
    assert orange.any()
    assert not ((same[..., 0] > 150) & (same[..., 2] < 120)).any()

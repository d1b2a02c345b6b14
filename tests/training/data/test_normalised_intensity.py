"""Units as tensors are the profiles of the volumes."""

import numpy as np
import torch

from meduet_training.data.augmentation.intensity import to_hu, to_units
from napari_meduet.volumes.intensity import CT_FULL


def test_units_are_those_of_the_profile():
    values = np.linspace(-1500, 2500, 777, dtype=np.float32)
    expected = torch.from_numpy(CT_FULL.encode(values))
    torch.testing.assert_close(to_units(torch.from_numpy(values), "CT"), expected, atol=1e-6, rtol=0)


def test_hu_is_the_inverse_and_goes_on_straight_outside():
    units = torch.linspace(0, 1, 333)
    torch.testing.assert_close(to_units(to_hu(units), "CT"), units, atol=1e-6, rtol=0)
    # From 250 to 1500 HU in 0.15 units: 0.015 above 1 is 125 HU more.
    assert abs(float(to_hu(torch.tensor(1.015))) - 1625.0) < 0.1


def test_mr_is_in_units_already():
    assert to_units(torch.tensor([-0.5, 0.3, 1.5]), "MR").tolist() == torch.tensor([0.0, 0.3, 1.0]).tolist()

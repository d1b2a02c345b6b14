from dataclasses import replace

import pytest
import torch
from small_generator import conditions, latent, minute_generator

from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity
from napari_meduet.core.synthesis.windowed import WindowedVelocity

TIMES = (0.4,)


def large() -> torch.Tensor:
    """Return two rows of 3 x 2 x 2 tokens."""
    return torch.randn(2, 4, 12, 8, 8, generator=torch.Generator().manual_seed(3))


def test_where_one_window_suffices_it_is_the_plain_velocity():
    generator, given, x = minute_generator(), conditions(), latent()
    windowed = WindowedVelocity(generator, given, Guidance(), TIMES, (2, 2, 2))
    assert torch.allclose(
        windowed(x, 0.4), GuidedVelocity(generator, given, Guidance(), TIMES)(x, 0.4), atol=1e-5
    )
    assert windowed.num_evaluations == 3


def test_each_window_has_the_content_of_its_own_places():
    """Two windows of two tokens over three tokens: the first token belongs to the left window only."""
    generator, given, x = minute_generator(), conditions(num_tokens=12), large()
    windowed = WindowedVelocity(generator, given, Guidance(), TIMES, (3, 2, 2))
    found = windowed(x, 0.4)
    assert found.shape == x.shape
    assert windowed.num_evaluations == 6
    left = replace(given, spatial_content=given.spatial_content[:, :8])  # raster order: x runs slowest
    right = replace(given, spatial_content=given.spatial_content[:, 4:])
    of_left = GuidedVelocity(generator, left, Guidance(), TIMES)(x[:, :, :8], 0.4)
    of_right = GuidedVelocity(generator, right, Guidance(), TIMES)(x[:, :, 4:], 0.4)
    assert torch.allclose(found[:, :, :4], of_left[:, :, :4], atol=1e-5)
    assert torch.allclose(found[:, :, 8:], of_right[:, :, 4:], atol=1e-5)
    between = torch.stack([of_left[:, :, 4:], of_right[:, :, :4]])
    middle = found[:, :, 4:8]
    assert (middle >= between.amin(0) - 1e-5).all()
    assert (middle <= between.amax(0) + 1e-5).all()


def test_each_window_has_its_part_of_the_mask():
    torch.manual_seed(0)
    generator = minute_generator()
    control = ControlNet(generator, 2)
    torch.nn.init.normal_(control.joins[0].weight)
    mask = torch.rand(2, 2, 12, 8, 8)
    given = replace(conditions(spatial=False), mask=mask)
    found = WindowedVelocity(generator, given, Guidance(), TIMES, (3, 2, 2), control=control)(large(), 0.4)
    right = replace(given, mask=mask[:, :, 4:])
    alone = GuidedVelocity(generator, right, Guidance(), TIMES, control=control)(large()[:, :, 4:], 0.4)
    assert torch.allclose(found[:, :, 8:], alone[:, :, 4:], atol=1e-5)


def test_the_same_velocity_everywhere_has_no_seams():
    """A generator that always predicts data of 0.25."""
    generator = minute_generator(prediction="data")
    with torch.no_grad():
        generator.prediction.weight.zero_()
        generator.prediction.bias.fill_(0.25)
        generator.content_prediction.weight.zero_()
    windowed = WindowedVelocity(generator, conditions(num_tokens=12), Guidance(), TIMES, (3, 2, 2))
    assert torch.allclose(windowed(large(), 0.4), (large() - 0.25) / 0.4, atol=1e-5)


def test_a_latent_smaller_than_the_generators_is_refused():
    with pytest.raises(ValueError, match="smaller than one window"):
        WindowedVelocity(minute_generator(), conditions(), Guidance(), TIMES, (1, 2, 2))

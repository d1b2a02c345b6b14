import torch

from napari_meduet.core.synthesis.interpolant import (
    data_of,
    noise_of,
    noised,
    velocity,
    velocity_of_data,
)

DATA, NOISE = torch.tensor([[4.0]]), torch.tensor([[-2.0]])


def at(time: float) -> torch.Tensor:
    return torch.tensor([time])


def test_the_path_by_hand():
    assert noised(DATA, NOISE, at(0.25)) == 2.5  # 3 - 0.5
    assert velocity(DATA, NOISE) == -6
    assert velocity_of_data(torch.tensor([[2.5]]), DATA, at(0.25)) == -6  # (2.5 - 4) / 0.25


def test_time_runs_from_data_to_noise():
    assert noised(DATA, NOISE, at(0.0)) == DATA
    assert noised(DATA, NOISE, at(1.0)) == NOISE
    faster = (noised(DATA, NOISE, at(0.51)) - noised(DATA, NOISE, at(0.5))) / 0.01
    assert torch.allclose(faster, velocity(DATA, NOISE), atol=1e-4)


def test_a_point_and_its_velocity_tell_data_and_noise():
    for time in (0.1, 0.5, 0.9):
        data, noise, times = torch.randn(3, 2), torch.randn(3, 2), torch.full((3,), time)
        x, slope = noised(data, noise, times), velocity(data, noise)
        assert torch.allclose(data_of(x, slope, time), data, atol=1e-6)
        assert torch.allclose(noise_of(x, slope, time), noise, atol=1e-6)
        assert torch.allclose(velocity_of_data(x, data, times), slope, atol=1e-5)


def test_it_is_the_published_path_under_time_reversed():
    """SiT: x_t = t data + (1 - t) noise, and its score from v = d alpha data + d sigma noise."""
    data, noise, ours = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([0.2, 0.5, 0.7])
    theirs = (1 - ours).unsqueeze(-1)
    alpha, sigma = theirs, 1 - theirs
    x, slope = alpha * data + sigma * noise, data - noise
    ratio = alpha / 1.0  # alpha / d alpha
    variance = sigma**2 - ratio * -1.0 * sigma
    their_score = (ratio * slope - x) / variance
    assert torch.allclose(noised(data, noise, ours), x)
    assert torch.allclose(velocity(data, noise), -slope)
    for row, time in enumerate(ours.tolist()):
        assert torch.allclose(-noise_of(x, -slope, time)[row] / time, their_score[row], atol=1e-5)


def test_the_score_of_a_gaussian_is_minus_x_over_its_variance():
    """Data and noise both of variance 1: at t the variance is (1 - t)^2 + t^2, the score -e / t."""
    x, time = torch.tensor([[0.7]]), 0.3
    variance = 0.7**2 + 0.3**2
    slope = x * (0.3 - 0.7) / variance  # E(noise | x) - E(data | x)
    assert torch.allclose(-noise_of(x, slope, time) / time, -x / variance)

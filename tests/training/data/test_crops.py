"""Crops: every domain as often, enough body, the same for the same seed."""

import numpy as np
import pytest
import torch

from meduet_training.data.augmentation.crops import BODY_SHARE, PLAIN_SHARE, CropSampler
from meduet_training.data.caches.prepared import WorkingScan

CPU = torch.device("cpu")
SIDE = 16


def grey(value: int, domain: str, shape=(24, 20, 28)) -> WorkingScan:
    values = np.full(shape, value, np.int16)
    return WorkingScan(values, np.ones(shape, bool), domain, "p", "CT", "a", "0")


def test_each_domain_is_drawn_as_often_however_many_scans_it_has():
    scans = [grey(0, "one"), *(grey(100, "three") for _ in range(3))]
    sampler = CropSampler(scans, SIDE, CPU, seed=0)
    plain = torch.cat([sampler.draw(20)[:10] for _ in range(12)])  # the others went through scanners
    from_one = float((plain.mean(dim=(1, 2, 3)) == 0).float().mean())
    assert 0.37 < from_one < 0.63  # three deviations of 120 fair draws


@pytest.mark.parametrize("count", [1, 4, 7])
def test_shapes(count):
    assert CropSampler([grey(0, "a")], SIDE, CPU, seed=0).draw(count).shape == (count, SIDE, SIDE, SIDE)


def test_half_of_the_crops_stay_as_they_were_scanned():
    crops = CropSampler([grey(50, "a")], SIDE, CPU, seed=0).draw(20)
    is_plain = (crops == 50.0).flatten(1).all(dim=1)
    assert is_plain[: int(20 * PLAIN_SHARE)].all()
    assert not is_plain[int(20 * PLAIN_SHARE) :].all()


def test_a_seed_draws_the_same_crops_again():
    rng = np.random.default_rng(0)
    scan = grey(0, "a")
    scan.values[:] = rng.integers(-200, 300, scan.values.shape)
    first, again, other = (CropSampler([scan], SIDE, CPU, seed).draw(4) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_crops_show_the_body():
    scan = grey(-1000, "a", shape=(64, 32, 32))
    scan.values[:40] = 50
    scan.body[40:] = False
    crops = CropSampler([scan], SIDE, CPU, seed=0).draw(40)[:20]
    body = (crops > -475).float().mean(dim=(1, 2, 3))
    assert (
        body.min() > BODY_SHARE - 0.1
    )  # anywhere, every fourth would show less; the border of stretched ones is interpolated


def test_a_thin_scan_is_continued_with_what_it_shows():
    crops = CropSampler([grey(70, "a", shape=(24, 24, 5))], SIDE, CPU, seed=0).draw(4)
    assert (crops[:2] == 70.0).all()

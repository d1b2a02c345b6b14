"""Windows that are drawn: truth has the anatomy, reference has the style, and a step is always the same."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import random_windows

from meduet_training.data.caches.latent_windows import LatentWindows
from meduet_training.data.sources.windows import ALIGNED_SEQUENCES, REGISTERED_SHARE, WindowSource


def numbered(windows: LatentWindows) -> LatentWindows:
    """Windows whose latents say which row they are, without any variance."""
    rows = torch.arange(len(windows.mean), dtype=torch.float32).view(-1, 1, 1, 1, 1)
    return replace(
        windows,
        mean=rows.expand(windows.mean.shape).half(),
        log_variance=torch.full_like(windows.log_variance, -40.0),
    )


def read(source: WindowSource, step: int, count: int) -> dict[str, torch.Tensor]:
    return source.read(source.choose(step, count))


def rows_of(source: WindowSource, latent: torch.Tensor) -> list[int]:
    mean, std = source.statistics()
    return (latent * std.view(-1, 1, 1, 1) + mean.view(-1, 1, 1, 1))[:, 0, 0, 0, 0].round().int().tolist()


@pytest.fixture
def windows() -> LatentWindows:
    return numbered(random_windows())


def drawn(windows: LatentWindows, steps: int = 20, count: int = 16) -> list[tuple[int, int, int]]:
    """(chosen, target, reference) rows of many draws."""
    source = WindowSource(windows, seed=0)
    choices = [choice for step in range(steps) for choice in source.choose(step, count)]
    return [(choice.window, choice.target, choice.reference) for choice in choices]


def test_the_target_is_the_same_anatomy_in_another_appearance(windows):
    for chosen, target, _ in drawn(windows):
        assert windows.anatomy[chosen] == windows.anatomy[target]
        assert windows.appearance[chosen] != windows.appearance[target]


def test_the_reference_is_the_targets_appearance_of_another_anatomy(windows):
    for _, target, reference in drawn(windows):
        assert windows.appearance[target] == windows.appearance[reference]
        assert windows.anatomy[target] != windows.anatomy[reference]


def test_a_step_is_the_same_batch_whenever_it_is_drawn(windows):
    first = read(WindowSource(random_windows(), seed=0), 7, 4)
    later = WindowSource(random_windows(), seed=0)
    read(later, 6, 4)
    again, other = read(later, 7, 4), read(later, 8, 4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["latent"], other["latent"])
    assert not torch.equal(first["latent"], read(WindowSource(random_windows(), seed=1), 7, 4)["latent"])


def test_a_row_is_the_same_whatever_is_read_beside_it():
    source = WindowSource(random_windows(), seed=0)
    choices = source.choose(3, 6)
    together, alone = source.read(choices), source.read(choices[4:5])
    assert all(torch.equal(together[name][4:5], alone[name]) for name in alone)


def test_every_domain_is_drawn_as_often_however_many_windows_it_has(windows):
    """Of 18 windows three are of site a, three of site b, six simulated, six nobody's."""
    counts = Counter(int(windows.domain[chosen]) for chosen, _, _ in drawn(windows, steps=40))
    assert set(counts) == {-1, 0, 1, 2}
    assert all(abs(count - 160) < 4 * 11 for count in counts.values())  # four deviations of 640 fair draws


def test_labels_and_coverage_belong_to_their_windows(windows):
    source = WindowSource(replace(windows, coverage=torch.rand(18, 8)), seed=0)
    choices = source.choose(0, 8)
    batch, windows = source.read(choices), source.windows
    chosen, targets, references = (
        rows_of(source, batch[name]) for name in ("latent", "aligned_target", "style_reference")
    )
    assert [(c.window, c.target, c.reference) for c in choices] == list(
        zip(chosen, targets, references, strict=True)
    )
    assert [choice.domain for choice in choices] == batch["domain"].tolist()
    assert torch.equal(batch["domain"], windows.domain[chosen])
    assert torch.equal(batch["coverage"], windows.coverage[chosen])
    assert torch.equal(batch["style_reference_coverage"], windows.coverage[references])


def test_latents_are_drawn_with_their_variance_and_standardised(windows):
    halves = torch.where(torch.arange(18).view(-1, 1, 1, 1, 1) % 2 > 0, 1.0, 5.0)
    windows = replace(
        windows,
        mean=halves.expand(windows.mean.shape).half(),  # mean 3, standard deviation 2
        log_variance=torch.zeros_like(windows.mean),
    )
    source = WindowSource(windows, seed=0)
    choices = source.choose(0, 16)
    latent = source.read(choices)["latent"]
    for row, choice in zip(latent, choices, strict=True):
        assert abs(row.mean() - (-1.0 if choice.window % 2 else 1.0)) < 0.05
        assert abs(row.std() - 0.5) < 0.03


@pytest.fixture
def session() -> LatentWindows:
    """Two anatomies, each in three sequences on one grid, each of them plain and through two scanners."""
    return numbered(
        replace(
            random_windows(),
            anatomy=torch.tensor([0] * 9 + [1] * 9),
            appearance=torch.tensor([0, 1, 2, 100, 101, 102, 200, 201, 202] * 2),
            domain=torch.tensor([0, -1, -1, 1, -1, -1, 2, -1, -1] * 2),
        )
    )


def test_a_sessions_other_sequence_is_the_target_more_often_than_not(session):
    is_other_sequence = [
        session.domain[target] >= 0 and session.appearance[target] // 100 != session.appearance[chosen] // 100
        for chosen, target, _ in drawn(session, steps=40)
    ]
    expected = ALIGNED_SEQUENCES + (1 - ALIGNED_SEQUENCES) * 2 / 8
    assert abs(np.mean(is_other_sequence) - expected) < 0.06  # four deviations of 640 draws


def test_windows_of_registered_sequences_fill_their_share(session):
    """Of what is drawn by domain, another 3 of 4 are plain windows: there are three domains and nobody's."""
    is_plain = [session.domain[chosen] >= 0 for chosen, _, _ in drawn(session, steps=40)]
    expected = REGISTERED_SHARE + (1 - REGISTERED_SHARE) * 3 / 4
    assert abs(np.mean(is_plain) - expected) < 0.06


def test_a_window_without_truth_is_its_own():
    alone = numbered(replace(random_windows(), anatomy=torch.arange(18)))
    assert all(chosen == target for chosen, target, _ in drawn(alone, steps=2))

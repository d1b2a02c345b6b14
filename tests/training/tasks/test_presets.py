"""Presets of the pretraining: the numbers of the paper, and what each variation changes."""

from dataclasses import asdict

import pytest

from meduet_training.engine.resume import flat
from meduet_training.tasks.pretraining.presets import (
    PRESETS,
    base,
    paper,
    small,
    tiny,
    with_objective_of_the_paper,
)
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig


def differing(one, other) -> set[str]:
    before, after = flat(asdict(one)), flat(asdict(other))
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_the_papers_run_is_that_of_section_4_1():
    run = paper()
    assert run.network == MeDUETConfig.base()
    assert run.objective == ObjectiveConfig.paper()
    assert (run.learning_rate, run.end_learning_rate, run.weight_decay) == (1e-4, 2e-5, 1e-2)
    assert (run.betas, run.clip, run.warmup, run.batch) == ((0.9, 0.95), 1.0, 0.01, 64)
    assert run.objective.total_steps == 200_000


def test_base_differs_from_the_paper_in_its_objective_alone():
    assert all(name.startswith("objective.") for name in differing(paper(), base()))
    assert base().objective == ObjectiveConfig.corrected()


def test_small_and_tiny_keep_to_their_sizes():
    assert 20_000 <= small().objective.total_steps <= 40_000
    assert 32 <= small().batch <= 64
    assert (small().network.width, small().network.depth) == (384, 8)
    assert (tiny().network.width, tiny().network.depth) == (192, 6)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_variation_differs_in_what_it_says(preset):
    run = preset()
    text = with_objective_of_the_paper(run)
    assert text.objective == ObjectiveConfig.paper(total_steps=run.objective.total_steps)
    assert all(name.startswith("objective.") for name in differing(run, text))

"""The bar in the terminal tells the time that is left, also of a run that was gone on with."""

import pytest
from rich.progress import Progress

from meduet_training.runtime import progress
from meduet_training.runtime.progress import training_bar


@pytest.mark.parametrize("first", [0, 5000])
def test_the_time_left_is_that_of_the_steps_left(monkeypatch, first):
    """A step a second; the steps of an earlier session were not taken in this one's time."""
    clock, bars = [100.0], []

    class Clocked(Progress):
        def __init__(self, *columns, **options):
            super().__init__(*columns, get_time=lambda: clock[0], **options)
            bars.append(self)

    monkeypatch.setattr(progress, "Progress", Clocked)
    with training_bar("", 10_000) as bar:
        for step in range(first, first + 21):
            bar(step, None if step % 20 else 2.5)
            clock[0] += 1
        (task,) = bars[0].tasks
        assert task.completed == first + 21
        assert task.time_remaining == pytest.approx(10_000 - task.completed, rel=0.1)
        assert task.fields["loss"] == "loss 2.500"

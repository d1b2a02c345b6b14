import pytest

from napari_meduet.core.schedules import warmup_cosine


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 0.25),  # four steps of warm-up: a quarter, a half, three quarters, all
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),  # the cosine begins
        (52, 0.55),  # half of 96 steps later it is half way from 1 to 0.1
        (100, 0.1),
    ],
)
def test_warmup_then_cosine_by_hand(step, share):
    assert warmup_cosine(step, 100, end=0.1, warmup=0.04) == pytest.approx(share)


def test_the_default_warmup_is_a_hundredth_of_the_steps():
    assert warmup_cosine(99, 200_000, end=0.2) == pytest.approx(100 / 2000)


def test_it_falls_without_a_step_up_after_the_warmup():
    shares = [warmup_cosine(step, 500, end=0.02) for step in range(5, 501)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0.02)


def test_even_the_shortest_run_begins_at_full_rate():
    assert warmup_cosine(0, 3, end=0.5) == 1.0

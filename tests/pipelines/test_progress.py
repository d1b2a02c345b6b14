"""Stages fill one bar, in order and to the end."""

from napari_meduet.pipelines.common.progress import part, parts


def test_stages_share_the_bar_by_weight():
    seen = []
    first, second = parts(lambda fraction, doing: seen.append((fraction, doing)), 1, 3)
    first(0.0, "a")
    first(1.0, "a")
    second(0.5, "b")
    second(1.0, "b")
    assert seen == [(0.0, "a"), (0.25, "a"), (0.625, "b"), (1.0, "b")]


def test_a_stage_never_leaves_its_share():
    seen = []
    stage = part(lambda fraction, doing: seen.append(fraction), 0.2, 0.4)
    stage(-1.0, "")
    stage(7.0, "")
    assert seen == [0.2, 0.4]

import pytest
import torch
from torch import nn

from napari_meduet.core.teacher import teacher_decay, update_teacher


def test_the_decay_rises_along_a_cosine():
    assert teacher_decay(0, 200) == pytest.approx(0.997)
    assert teacher_decay(50, 200) == pytest.approx(0.9997 - 0.0027 * (1 + 0.5**0.5) / 2)
    assert teacher_decay(100, 200) == pytest.approx((0.997 + 0.9997) / 2)
    assert teacher_decay(200, 200) == pytest.approx(0.9997)
    assert teacher_decay(300, 200) == pytest.approx(0.9997)


def test_the_teacher_moves_by_hand():
    teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    for parameter, value in (
        (teacher.weight, 1.0),
        (teacher.bias, 0.0),
        (student.weight, 3.0),
        (student.bias, 4.0),
    ):
        nn.init.constant_(parameter, value)
    update_teacher(teacher, student, decay=0.75)
    assert teacher.weight.item() == 1.5  # 0.75 * 1 + 0.25 * 3
    assert teacher.bias.item() == 1.0
    assert student.weight.item() == 3.0


def test_a_teacher_that_equals_its_student_stays_to_the_last_bit():
    student = nn.Linear(50, 50)
    teacher = nn.Linear(50, 50)
    teacher.load_state_dict(student.state_dict())
    update_teacher(teacher, student, decay=0.997)
    assert torch.equal(teacher.weight, student.weight)

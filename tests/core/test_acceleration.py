import pytest
import torch
from small_generator import conditions, latent, minute_generator

from napari_meduet.core.quantisation import multiplies_exactly
from napari_meduet.core.synthesis.acceleration import accelerated
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


def velocity_of(generator):
    device = generator.positions.device
    given = conditions(1)
    for name, field in vars(given).items():
        if isinstance(field, torch.Tensor):
            object.__setattr__(given, name, field.to(device))
    return GuidedVelocity(generator, given, Guidance(), [0.5])(latent(1).to(device), 0.5)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_float32_is_the_generator_itself():
    generator = minute_generator()
    assert accelerated(generator) is generator


@pytest.mark.parametrize(
    "precision",
    [
        "bfloat16",
        pytest.param("int8", marks=pytest.mark.skipif(not multiplies_exactly(), reason="products overflow")),
    ],
)
def test_fewer_bits_stay_near_and_leave_the_generator_as_it_was(precision):
    generator = minute_generator()
    expected = velocity_of(generator)
    found = velocity_of(accelerated(generator, precision))
    assert found.dtype == torch.float32
    assert 0 < relative_error(found, expected) < 0.1
    assert torch.equal(velocity_of(generator), expected)


def test_without_a_compiler_for_the_gpu_nothing_is_compiled(monkeypatch):
    from napari_meduet.core.synthesis import acceleration

    compiled = []
    monkeypatch.setattr(torch, "compile", lambda predict, **_: compiled.append(predict) or predict)
    monkeypatch.setattr(acceleration, "find_spec", lambda name: None)
    accelerated(minute_generator(), compiles=True)
    assert len(compiled) == 1  # the CPU has another compiler


def test_compiled_predictions_outlive_the_next_one(monkeypatch):
    """A replayed CUDA graph writes every prediction to the same memory."""
    place = torch.zeros(1)

    def replay(number):
        return place.copy_(number)

    generator = minute_generator()
    generator.predict = replay
    monkeypatch.setattr(torch, "compile", lambda predict, **_: predict)
    faster = accelerated(generator, compiles=True)
    first, second = (faster.predict(torch.tensor([number])) for number in (1.0, 2.0))
    assert (first.item(), second.item()) == (1, 2)


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_on_a_gpu_it_predicts_the_same(precision):
    generator = minute_generator().cuda()
    expected = velocity_of(generator)
    compiled = accelerated(generator, precision, compiles=True)
    for _ in range(3):  # the first calls record the graph, later ones replay it
        found = velocity_of(compiled)
    assert relative_error(found, expected) < (1e-3 if precision == "float32" else 0.1)


@needs_gpu
def test_int8_is_refused_on_a_gpu():
    with pytest.raises(ValueError, match="choose bfloat16"):
        accelerated(minute_generator().cuda(), "int8")

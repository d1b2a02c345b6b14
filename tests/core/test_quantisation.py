import pytest
import torch
from small_generator import awake, minute_config
from torch import nn

from napari_meduet.core import quantisation
from napari_meduet.core.quantisation import (
    QuantisedLinear,
    multiplies_exactly,
    quantised_rows,
    with_quantised_blocks,
)
from napari_meduet.core.synthesis.generator import Generator

needs_products = pytest.mark.skipif(
    not multiplies_exactly(), reason="this processor's 8-bit products overflow"
)


def test_a_row_is_written_in_steps_of_a_127th_of_its_largest_number():
    rows, scale = quantised_rows(torch.tensor([[-254.0, 127.0, 3.0], [0.0, 0.0, 0.0]]))
    assert rows.tolist() == [[-127, 64, 2], [0, 0, 0]]  # 63.5 and 1.5 round to even
    assert scale[0] == 2


@needs_products
def test_whole_numbers_within_the_range_multiply_exactly():
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[127.0, 0, -1], [2, 127, 0]]))
        linear.bias.copy_(torch.tensor([0.5, -0.5]))
    x = torch.tensor([[[127.0, 1, 10]], [[0, -127, 5]]])
    torch.testing.assert_close(QuantisedLinear(linear)(x), linear(x), rtol=1e-6, atol=1e-4)


@needs_products
@pytest.mark.parametrize("bias", [True, False])
def test_rounding_costs_about_a_percent(bias):
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 48, bias=bias), torch.randn(5, 7, 96)
    expected = linear(x)
    error = (QuantisedLinear(linear)(x) - expected).norm() / expected.norm()
    assert 0.001 < error < 0.02


@needs_products
def test_every_linear_layer_of_the_blocks_is_replaced_in_the_copy_alone():
    generator = awake(Generator(minute_config()))
    copied = with_quantised_blocks(generator)
    for block, other in zip(generator.transformer.blocks, copied.transformer.blocks, strict=True):
        quantised = [each for each in other.modules() if isinstance(each, QuantisedLinear)]
        assert len(quantised) == 4
        assert not any(isinstance(each, nn.Linear) for each in other.modules())
        assert not any(isinstance(each, QuantisedLinear) for each in block.modules())
    assert isinstance(copied.patch_embedding, nn.Linear)


def test_a_processor_whose_products_overflow_is_refused(monkeypatch):
    monkeypatch.setattr(quantisation, "multiplies_exactly", lambda: False)
    with pytest.raises(ValueError, match="Choose precision float32"):
        with_quantised_blocks(nn.Linear(2, 2))

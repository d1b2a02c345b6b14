import pytest
import torch
from small_generator import conditions, latent, minute_config

from napari_meduet.core.meduet import Encoder, MeDUETConfig
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.core.warm_start import warm_start

SIZES = {"grid": (1, 1, 1), "width": 12, "depth": 2, "heads": 2, "decoder_width": 12, "decoder_heads": 2}


def encoder(**changes) -> Encoder:
    torch.manual_seed(1)
    made = Encoder(MeDUETConfig.tiny(**SIZES | changes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.uniform_(-1, 1)  # biases and affine parameters too, so that the test covers each tensor
    return made


def test_every_tensor_of_the_encoder_loads_and_the_output_is_exactly_zero():
    generator, given = Generator(minute_config()), encoder()
    warm_start(generator, given)
    loaded = generator.state_dict()
    tensors = given.state_dict()
    assert len(tensors) == 2 + 2 * 12 + 2  # embedding, two blocks of twelve tensors, last norm
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert not generator(latent(), torch.rand(2), conditions()).any()


def test_everything_else_stays_as_it_was_made():
    generator = Generator(minute_config(depth=3))
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    given = encoder()
    warm_start(generator, given)
    changed = {
        name for name, tensor in generator.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == set(given.state_dict())


def test_the_papers_encoder_fits_its_generator_tensor_by_tensor():
    with torch.device("meta"):
        generator, given = Generator(GeneratorConfig.base()), Encoder(MeDUETConfig.base())
        warm_start(generator, given)
    shapes = {name: tensor.shape for name, tensor in generator.state_dict().items()}
    assert all(shapes[name] == tensor.shape for name, tensor in given.state_dict().items())
    assert sum(tensor.numel() for tensor in given.state_dict().values()) == 12 * 7_087_872 + 1536 + 257 * 768


def test_generator_and_encoder_may_not_share_memory():
    generator, given = Generator(minute_config()), encoder()
    warm_start(generator, given)
    with torch.no_grad():
        generator.transformer.norm.weight.add_(1)
    assert not torch.equal(generator.transformer.norm.weight, given.transformer.norm.weight)


@pytest.mark.parametrize(
    ("network", "of_encoder", "words"),
    [
        ({"depth": 1}, {}, "fewer than the encoder's 2"),
        ({"heads": 3}, {}, "3 attention heads, but the encoder has 2"),
        ({"width": 24}, {}, "differ in width"),
        ({"patch_size": 2}, {}, "differ in width or in the size"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_with_the_reason(network, of_encoder, words):
    with pytest.raises(ValueError, match=words):
        warm_start(Generator(minute_config(**network)), encoder(**of_encoder))

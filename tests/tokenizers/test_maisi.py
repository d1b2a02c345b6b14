"""MAISI's autoencoder, with random weights at a small size: run unsplit, loaded safely."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from napari_meduet.errors import InputError
from napari_meduet.tokenizers.maisi import MaisiConfig, MaisiTokenizer, maisi_network
from napari_meduet.tokenizers.tokenizer import Tokenizer

SMALL = MaisiConfig(num_channels=(8, 8, 16), num_res_blocks=(1, 1, 1), norm_num_groups=4)
PUBLISHED_SPLITS = 8


@pytest.fixture(scope="module")
def tokenizer() -> MaisiTokenizer:
    torch.manual_seed(0)
    return MaisiTokenizer(SMALL).eval()


@pytest.fixture(params=[".safetensors", ".pt", "fine-tuned.pt"])
def weight_file(request, tmp_path, tokenizer):
    weights = tokenizer.network.state_dict()
    path = tmp_path / f"weights{request.param}"
    if request.param == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights if request.param == ".pt" else {"unet_state_dict": weights, "epoch": 3}, path)
    return path


def test_it_is_a_tokenizer(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.name, tokenizer.channels, tokenizer.stride) == ("maisi", 4, (4, 4, 4))


def test_the_published_sizes_are_the_defaults():
    with torch.device("meta"):
        tokenizer = MaisiTokenizer()
    assert sum(weight.numel() for weight in tokenizer.parameters()) == pytest.approx(20.9e6, rel=0.005)


@torch.inference_mode()
def test_any_multiple_of_four_comes_back_in_its_size(tokenizer):
    mean, log_variance = tokenizer.encode(torch.rand(1, 1, 8, 20, 12))
    assert mean.shape == log_variance.shape == (1, 4, 2, 5, 3)
    assert tokenizer.decode(mean).shape == (1, 1, 8, 20, 12)


@torch.inference_mode()
def test_the_log_variance_is_that_of_the_network(tokenizer):
    volume = torch.rand(1, 1, 8, 8, 8)
    _, log_variance = tokenizer.encode(volume)
    torch.testing.assert_close(log_variance.exp().sqrt(), tokenizer.network.encode(volume)[1])


@torch.inference_mode()
def test_unsplit_equals_the_published_splits_where_those_are_right(tokenizer):
    split = maisi_network(SMALL, num_splits=PUBLISHED_SPLITS).eval()
    split.load_state_dict(tokenizer.network.state_dict())
    volume = torch.rand(1, 1, 16, 96, 16)
    mean, _ = tokenizer.encode(volume)
    assert (mean - split.encode(volume)[0]).abs().max() <= 1e-5
    assert (tokenizer.decode(mean) - split.decode(mean)).abs().max() <= 1e-5


@torch.inference_mode()
def test_the_published_splits_lose_a_slice_where_y_is_no_multiple_of_32(tokenizer):
    """Why we run unsplit. Should MONAI mend it, this test says so."""
    split = maisi_network(SMALL, num_splits=PUBLISHED_SPLITS).eval()
    volume = torch.rand(1, 1, 16, 100, 16)
    assert split.encode(volume)[0].shape[3] == 24
    assert tokenizer.encode(volume)[0].shape[3] == 25


@torch.inference_mode()
def test_convolutions_reach_no_further_than_the_halo():
    """At the published depth, with the norms taken out: they look at everything."""
    torch.manual_seed(0)
    tokenizer = MaisiTokenizer(MaisiConfig(num_channels=(4, 4, 4), norm_num_groups=1)).eval()
    for module in tokenizer.network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda features: features
    latent = torch.randn(1, 4, 27, 1, 1)
    volume = torch.rand(1, 1, 108, 4, 4)
    changed_latent, changed_volume = latent.clone(), volume.clone()
    changed_latent[:, :, 13] += 1
    changed_volume[:, :, 52:56] += 1
    decoded = (tokenizer.decode(changed_latent) - tokenizer.decode(latent)).abs().amax(dim=(0, 1, 3, 4)) > 0
    encoded = (tokenizer.encode(changed_volume)[0] - tokenizer.encode(volume)[0]).abs().amax(
        dim=(0, 1, 3, 4)
    ) > 0
    reach = max(
        13 - encoded.nonzero().min(),
        encoded.nonzero().max() - 13,
        13 - decoded.nonzero().min() // 4,
        decoded.nonzero().max() // 4 - 13,
    )
    assert reach == tokenizer.halo


@torch.inference_mode()
def test_weights_on_disk_give_the_same_tokenizer(weight_file, tokenizer):
    loaded = MaisiTokenizer.from_file(weight_file, SMALL)
    volume = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(loaded.encode(volume)[0], tokenizer.encode(volume)[0])


def test_a_side_that_is_no_multiple_of_four_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no multiple of 4"):
        tokenizer.encode(torch.rand(1, 1, 8, 10, 8))


def test_another_network_is_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: these are not the weights"):
        MaisiTokenizer.from_file(tmp_path / "other.safetensors", SMALL)


def test_other_sizes_are_refused(weight_file):
    with pytest.raises(InputError, match="these are not the weights"):
        MaisiTokenizer.from_file(
            weight_file, MaisiConfig(num_channels=(4, 4, 8), num_res_blocks=(1, 1, 1), norm_num_groups=4)
        )


def test_weights_that_are_not_finite_are_refused(tmp_path, tokenizer):
    weights = {name: weight.clone() for name, weight in tokenizer.network.state_dict().items()}
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match="not finite"):
        MaisiTokenizer.from_file(tmp_path / "nan.safetensors", SMALL)


class Hostile:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (self.trace, "w")


@pytest.mark.parametrize(
    "save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol=2))]
)
def test_code_in_a_weight_file_is_not_run(tmp_path, save):
    trace = tmp_path / "trace"
    save({"weight": Hostile(str(trace))}, tmp_path / "hostile.pt")
    with pytest.raises(InputError, match=r"hostile\.pt"):
        MaisiTokenizer.from_file(tmp_path / "hostile.pt", SMALL)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, tokenizer, name):
    whole = tmp_path / f"whole{(tmp_path / name).suffix}"
    if whole.suffix == ".pt":
        torch.save(tokenizer.network.state_dict(), whole)
    else:
        save_file(tokenizer.network.state_dict(), whole)
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        MaisiTokenizer.from_file(tmp_path / name, SMALL)


@pytest.mark.parametrize(("name", "sentence"), [("absent.pt", "no such"), ("weights.bin", "come as")])
def test_what_is_no_weight_file_is_refused(tmp_path, name, sentence):
    (tmp_path / "weights.bin").write_bytes(b"0")
    with pytest.raises(InputError, match=sentence):
        MaisiTokenizer.from_file(tmp_path / name, SMALL)

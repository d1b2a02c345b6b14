"""Masked autoencoding: the loss scores hidden tokens, and the network does not see them."""

import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.pretexts.masked import MaskedConfig, masked_loss, token_error, visible_positions

SMALL = MeDUETConfig.tiny(
    grid=(2, 2, 2), width=24, depth=1, heads=2, content_width=24, style_width=6,
    decoder_width=24, decoder_depth=1, decoder_heads=2, num_domains=3,
)  # fmt: skip
CONFIG = MaskedConfig(total_steps=10)


def a_batch(num_volumes: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [CONFIG.draw(SMALL, generator) for _ in range(num_volumes)]
    return {
        "latent": torch.randn(num_volumes, 4, 8, 8, 8, generator=generator),
        "domain": torch.zeros(num_volumes, dtype=torch.int64),
        "mask": torch.stack([row["mask"] for row in rows]),
    }


def an_autoencoder():
    torch.manual_seed(0)
    return CONFIG.build(SMALL)


def test_only_hidden_tokens_count():
    assert masked_loss(torch.tensor([[4.0, 9.0]]), torch.tensor([[1.0, 0.0]])) == 4


def test_each_volume_counts_the_same():
    error, mask = torch.tensor([[1.0, 3.0], [10.0, 20.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert masked_loss(error, mask) == (2 + 10) / 2


def test_the_error_of_a_token_is_the_mean_over_its_cube():
    clean, predicted = torch.zeros(1, 1, 4, 2, 2), torch.zeros(1, 1, 4, 2, 2)
    predicted[0, 0, 0, 0, 0] = 4  # one voxel of eight in the first cube
    predicted[0, 0, 2:] = 3
    assert token_error(predicted, clean, size=2).tolist() == [[2.0, 9.0]]


@given(seed=st.integers(0, 2**16))
def test_errors_of_what_was_shown_change_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    error, other = torch.rand(2, 3, 8, generator=generator)
    mask = (torch.rand(3, 8, generator=generator) < 0.5).float()
    assert torch.equal(masked_loss(error, mask), masked_loss(torch.where(mask > 0, error, other), mask))


def test_visible_positions_are_those_outside_the_mask():
    mask = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert visible_positions(mask, 2).tolist() == [[1, 3], [0, 1]]


def test_three_quarters_of_the_tokens_are_hidden():
    base = MeDUETConfig.base()
    masks = [CONFIG.draw(base, torch.Generator().manual_seed(seed))["mask"] for seed in (0, 1)]
    assert [int(mask.sum()) for mask in masks] == [162, 162]
    assert not torch.equal(*masks)


def test_the_network_does_not_see_what_is_hidden():
    autoencoder, batch, predictions = an_autoencoder(), a_batch(), []
    autoencoder.student.decoder.register_forward_hook(lambda *call: predictions.append(call[-1]))
    autoencoder(batch, 0)
    hidden = batch["mask"].reshape(-1, 1, 2, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    hidden = hidden.repeat_interleave(4, 4)
    autoencoder(batch | {"latent": batch["latent"] + 5 * hidden}, 0)
    autoencoder(batch | {"latent": batch["latent"] + 5 * (1 - hidden)}, 0)
    before, hidden_changed, shown_changed = predictions
    assert torch.equal(before, hidden_changed)
    assert not torch.allclose(before, shown_changed)


def test_its_student_is_a_meduet_network_and_starts_one():
    MeDUET(SMALL).load_state_dict(an_autoencoder().student.state_dict())


def test_whatever_is_trained_has_a_gradient():
    autoencoder = an_autoencoder()
    autoencoder(a_batch(), 0)["total"].backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_learning_lowers_the_loss():
    autoencoder, batch, totals = an_autoencoder(), a_batch(4), []
    batch["latent"] = batch["latent"].mean(dim=(2, 3, 4), keepdim=True).expand_as(batch["latent"]) * 20
    optimizer = torch.optim.AdamW([p for p in autoencoder.parameters() if p.requires_grad], lr=1e-2)
    for step in range(25):
        loss = autoencoder(batch, step)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])


@pytest.mark.parametrize("changes", [{"mask_ratio": 1.0}, {"mask_ratio": 0.0}, {"total_steps": 0}], ids=str)
def test_masking_that_cannot_work_cannot_be_configured(changes):
    with pytest.raises(ValueError, match=r"between 0 and 1|at least 1"):
        MaskedConfig(**changes)


def test_a_forward_is_one_graph_for_the_compiler():
    script = """
import torch
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.pretexts.masked import MaskedConfig
network, config = MeDUETConfig(**{network}), MaskedConfig()
mask = config.draw(network, torch.Generator().manual_seed(0))["mask"].expand(2, -1)
batch = dict(latent=torch.randn(2, *network.latent_shape), mask=mask)
torch.compile(config.build(network), backend="eager", fullgraph=True)(batch, 0)
""".replace("{network}", repr(asdict(SMALL)))
    # A separate process, because the shape checks of this process break compilation.
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

"""Masked diffusion: numbers by hand, and the two pretexts at its limits."""

import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.pretexts.masked import masked_loss, token_error
from napari_meduet.core.pretexts.masked_diffusion import (
    MaskedDiffusion,
    MaskedDiffusionConfig,
    corrupt,
    signal_and_noise,
    visible_loss,
    visible_weight,
)
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig
from napari_meduet.core.pretexts.time_conditioning import (
    FiLM,
    TokenFiLM,
    VolumeFiLM,
)
from napari_meduet.core.time_embedding import TIME_WIDTH, time_embedding

LATENT = MeDUETConfig.tiny(
    grid=(2, 2, 2), width=24, depth=2, heads=2, content_width=24, style_width=6,
    decoder_width=24, decoder_depth=1, decoder_heads=2, num_domains=3,
)  # fmt: skip
VOXEL = ResidualUNetConfig(grid=(2, 1, 1), widths=(4, 8), num_blocks=(1, 1))
BOTH = pytest.mark.parametrize("network", [LATENT, VOXEL], ids=["latent", "voxel"])
CORRUPTIONS = pytest.mark.parametrize("corruption", ["ve", "vp", "flow"])
SEEDS = st.integers(0, 2**16)
TIMES = torch.linspace(0, 1, 11)


def a_batch(network, config, num_volumes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = [config.draw(network, generator) for _ in range(num_volumes)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    clean = torch.randn(num_volumes, *network.latent_shape, generator=generator)
    return batch | {"latent": clean, "domain": torch.zeros(num_volumes, dtype=torch.int64)}


def with_answer(network, config, answer) -> MaskedDiffusion:
    """Masked diffusion whose network is a function of its input; `seen` stores the input."""
    diffusion = config.build(network)
    diffusion.seen = []

    def predict(corrupted, time):
        diffusion.seen.append(corrupted)
        return answer(corrupted)

    diffusion.predict = predict
    return diffusion


def test_corruptions_by_hand():
    time = torch.tensor([0.0, 0.5, 1.0])
    signal, noise = signal_and_noise(time, "ve", sigma_max=5.0)
    assert (signal.tolist(), noise.tolist()) == ([1, 1, 1], [0, 2.5, 5])
    signal, noise = signal_and_noise(time, "flow", sigma_max=1.0)
    assert (signal.tolist(), noise.tolist()) == ([1, 0.75, 0.5], [0, 0.25, 0.5])
    signal, noise = signal_and_noise(time, "vp", sigma_max=1.0)  # an eighth of a turn
    assert signal.tolist() == pytest.approx([1, math.cos(math.pi / 8), math.sqrt(0.5)])
    assert noise.tolist() == pytest.approx([0, math.sin(math.pi / 8), math.sqrt(0.5)])


@CORRUPTIONS
@given(sigma_max=st.floats(0.01, 50))
def test_every_corruption_goes_from_data_to_the_same_share_of_noise(corruption, sigma_max):
    signal, noise = signal_and_noise(TIMES, corruption, sigma_max)
    assert (signal[0], noise[0]) == (1, 0)
    assert noise[-1] / signal[-1] == pytest.approx(sigma_max, rel=1e-4)
    assert ((noise / signal).diff() > 0).all()


@given(sigma_max=st.floats(0, 50))
def test_variance_is_preserved_on_the_circle_and_the_sum_on_the_line(sigma_max):
    signal, noise = signal_and_noise(TIMES, "vp", sigma_max)
    assert torch.allclose(signal**2 + noise**2, torch.ones(11))
    signal, noise = signal_and_noise(TIMES, "flow", sigma_max)
    assert torch.allclose(signal + noise, torch.ones(11))


def test_noise_covers_everything_and_blocks_under_the_mask_are_zero():
    clean, noise = torch.full((1, 1, 2, 1, 1), 3.0), torch.full((1, 1, 2, 1, 1), 10.0)
    scales = torch.tensor([0.5]), torch.tensor([0.1])
    corrupted = corrupt(clean, noise, torch.tensor([[0.0, 1.0]]), *scales, grid=(2, 1, 1))
    assert corrupted.flatten().tolist() == [2.5, 0.0]


def test_the_visible_weight_by_hand():
    sigma = torch.tensor([0.0, 0.1, 0.5, 1.0, 5.0])
    assert visible_weight(sigma).tolist() == pytest.approx([0, 10, 5, 2, 1.04])


def test_the_visible_loss_by_hand():
    error, mask = torch.tensor([[1.0, 3.0, 8.0], [2.0, 5.0, 7.0]]), torch.tensor([[0.0, 0, 1], [1, 0, 1]])
    assert visible_loss(error, mask, torch.tensor([10.0, 2.0])) == (10 * 2 + 2 * 5) / 2


@CORRUPTIONS
@BOTH
def test_without_noise_it_is_masked_autoencoding(network, corruption):
    config = MaskedDiffusionConfig(sigma_max=0.0, corruption=corruption)
    diffusion = with_answer(network, config, lambda corrupted: 0.3 * corrupted - 1)
    batch = a_batch(network, config)
    losses = diffusion(batch, 0)
    (seen,) = diffusion.seen
    error = token_error(0.3 * seen - 1, batch["latent"], network.patch_size)
    assert torch.equal(losses["total"], masked_loss(error, batch["mask"]))
    shown = token_error(seen, batch["latent"], network.patch_size) * (1 - batch["mask"])
    assert torch.equal(shown, torch.zeros_like(shown))  # visible blocks have no noise


@CORRUPTIONS
@pytest.mark.parametrize("sigma_max", [1e-1, 1e-2, 1e-3])
def test_as_noise_vanishes_whoever_copies_what_is_shown_scores_as_a_masked_autoencoder(corruption, sigma_max):
    config = MaskedDiffusionConfig(sigma_max=sigma_max, corruption=corruption)
    diffusion = with_answer(LATENT, config, lambda corrupted: corrupted)
    batch = a_batch(LATENT, config, num_volumes=8)
    error = token_error(torch.zeros_like(batch["latent"]), batch["latent"], LATENT.patch_size)
    gap = float(diffusion(batch, 0)["total"] - masked_loss(error, batch["mask"]))
    # Weight 10, an error of σ² times the variance of Z (1), or of Z - X₀ (2) on a straight line.
    assert -1e-6 < gap < 20 * sigma_max**2 + 1e-6


@given(seed=SEEDS)
def test_without_holes_it_is_denoising_score_matching(seed):
    # D(X̃) = X̃ + σ² s(X̃) names a score s, whose denoising loss is |s + Z / σ|² (Vincent 2011).
    config = MaskedDiffusionConfig()
    diffusion = with_answer(LATENT, config, lambda corrupted: 0.7 * corrupted)
    batch = a_batch(LATENT, config, seed=seed)
    batch["mask"] = torch.zeros_like(batch["mask"])
    batch["time"] = 0.1 + 0.9 * batch["time"]  # σ of at least 1/2, where the weight is below its bound
    losses = diffusion(batch, 0)

    sigma = (5 * batch["time"]).reshape(-1, 1, 1, 1, 1)
    noised = batch["latent"] + sigma * batch["noise"]
    score = (0.7 * noised - noised) / sigma**2
    distance = (score + batch["noise"] / sigma).square().mean(dim=(1, 2, 3, 4))
    variance = sigma.flatten() ** 2
    assert losses["masked"] == 0
    assert torch.allclose(losses["total"], (variance * (1 + variance) * distance).mean(), rtol=1e-4)


@BOTH
def test_what_a_row_draws(network):
    config = MaskedDiffusionConfig()
    rows = [config.draw(network, torch.Generator().manual_seed(seed)) for seed in range(40)]
    again = config.draw(network, torch.Generator().manual_seed(0))
    assert all(torch.equal(again[name], rows[0][name]) for name in again)
    assert all(row["noise"].shape == network.latent_shape for row in rows)
    times = [float(row["time"]) for row in rows]
    assert 0 <= min(times) < 0.2
    assert 0.8 < max(times) < 1


def test_the_share_of_holes_is_drawn_anew_for_each_row():
    config = MaskedDiffusionConfig()
    network = MeDUETConfig.tiny()
    shares = [
        float(config.draw(network, torch.Generator().manual_seed(seed))["mask"].mean()) for seed in range(60)
    ]
    assert 0.005 < min(shares) < 0.1
    assert 0.9 < max(shares) < 0.995
    assert 0.35 < sum(shares) / 60 < 0.65


@BOTH
def test_whatever_is_trained_has_a_gradient(network):
    torch.manual_seed(0)
    diffusion = MaskedDiffusionConfig().build(network)
    losses = diffusion(a_batch(network, diffusion.config), 0)
    losses["total"].backward()
    assert torch.equal(losses["total"], losses["masked"] + losses["visible"])
    for name, parameter in diffusion.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


@BOTH
def test_learning_lowers_the_loss(network):
    torch.manual_seed(0)
    config = MaskedDiffusionConfig()
    diffusion, batch, totals = config.build(network), a_batch(network, config, num_volumes=4), []
    optimizer = torch.optim.AdamW([p for p in diffusion.parameters() if p.requires_grad], lr=1e-2)
    for step in range(12):
        loss = diffusion(batch, step)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])


@pytest.mark.parametrize(("film", "axes"), [(TokenFiLM, (1, 1, 2)), (VolumeFiLM, (1, 2, 1, 1, 1))])
def test_features_are_scaled_and_shifted_by_hand(film, axes):
    conditioning, time = film(2), torch.zeros(1, TIME_WIDTH)
    with torch.no_grad():
        conditioning.linear.bias.copy_(torch.tensor([1.0, 0.0, 3.0, 4.0]))  # γ, then β
    assert conditioning(torch.tensor([2.0, 5.0]).reshape(axes), time).flatten().tolist() == [2 * 2 + 3, 5 + 4]


def test_times_are_told_apart():
    embedded = time_embedding(TIMES)
    assert embedded.shape == (11, TIME_WIDTH)
    assert embedded[0].tolist() == [1.0] * 128 + [0.0] * 128
    assert torch.pdist(embedded).min() > 1


def test_at_first_time_changes_nothing_and_the_latent_student_is_a_plain_meduet():
    torch.manual_seed(0)
    diffusion = MaskedDiffusionConfig().build(LATENT)
    latent = torch.randn(2, *LATENT.latent_shape)
    student = MeDUET(LATENT)
    student.load_state_dict(diffusion.student.state_dict())
    expected = student.decode(*student.encode(latent))
    for time in (0.0, 0.7):
        assert torch.equal(diffusion.predict(latent, torch.full((2,), time)), expected)


@BOTH
def test_the_network_is_told_the_time(network):
    torch.manual_seed(0)
    diffusion = MaskedDiffusionConfig().build(network)
    for module in diffusion.modules():
        if isinstance(module, FiLM):
            torch.nn.init.normal_(module.linear.weight, std=0.1)
    volume = torch.randn(1, *network.latent_shape)
    early, late = (diffusion.predict(volume, torch.tensor([time])) for time in (0.1, 0.9))
    assert not torch.allclose(early, late, atol=1e-3)


def test_the_voxel_network_is_nnu_nets_medium_preset_and_its_conditioning():
    with torch.device("meta"):
        network = MaskedDiffusionConfig().build(ResidualUNetConfig()).student
    sizes = {name: weight.numel() for name, weight in network.named_parameters()}
    conditioning = sum(size for name, size in sizes.items() if "film" in name or name.startswith("time."))
    assert sum(sizes.values()) - conditioning == pytest.approx(102e6, rel=0.06)
    assert ResidualUNetConfig().latent_shape == (1, 96, 96, 96)


@pytest.mark.parametrize(
    "changes",
    [{"sigma_max": -1.0}, {"sigma_max": math.inf}, {"corruption": "typo"}, {"total_steps": 0}],
    ids=str,
)
def test_a_diffusion_that_cannot_work_cannot_be_configured(changes):
    config = object.__new__(MaskedDiffusionConfig)  # avoids the shape checks, as in test_objective.py
    for name, value in (asdict(MaskedDiffusionConfig()) | changes).items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=r"sigma_max must be|one of|at least 1"):
        config.__post_init__()


@pytest.mark.parametrize(
    "changes", [{"num_blocks": (1, 1)}, {"widths": (4,) * 6, "grid": (1, 1, 1)}], ids=["blocks", "grid"]
)
def test_a_network_that_does_not_fit_its_crops_cannot_be_configured(changes):
    with pytest.raises(ValueError, match=r"same length|cannot be halved"):
        ResidualUNetConfig(**changes)

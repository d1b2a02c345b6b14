import pytest
import torch
from small_generator import awake, conditions, latent, minute_config

from napari_meduet.core.synthesis.diffusion import diffused
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.core.synthesis.interpolant import velocity, velocity_of_data
from napari_meduet.core.synthesis.objective import (
    GenerationConfig,
    GenerationObjective,
    conditions_of,
    training_time,
    velocity_loss,
)
from napari_meduet.core.teacher import ramped_decay


def batch(**changes) -> dict[str, torch.Tensor]:
    given = conditions()
    drops = torch.tensor([False, False])
    made = {
        "latent": latent(), "noise": latent(seed=2), "time": torch.tensor([0.3, 0.8]),
        "content": given.content, "style": given.style, "spatial_content": given.spatial_content,
        "drops_content": drops, "drops_style": drops, "drops_spatial": drops,
    }  # fmt: skip
    return made | changes


def test_the_loss_by_hand():
    """Latent 1, noise 3: the velocity is 2, and a prediction of 1.5 has an error of 0.5."""
    shape = (2, 4, 8, 8, 8)
    asked = batch(latent=torch.ones(shape), noise=torch.full(shape, 3.0))
    assert velocity_loss(minute_config(), torch.full(shape, 1.5), asked) == 0.25
    assert velocity_loss(minute_config(prediction="noise"), torch.full(shape, 1.5), asked) == 2.25


def test_an_error_of_predicted_data_counts_as_that_of_its_velocity_but_never_more_than_at_0_3():
    time = torch.tensor([0.5, 0.5])
    asked, predicted = batch(time=time), latent(seed=7)
    x = 0.5 * asked["latent"] + 0.5 * asked["noise"]
    missed = velocity_of_data(x, predicted, time) - velocity(asked["latent"], asked["noise"])
    config = minute_config(prediction="data")
    assert torch.isclose(velocity_loss(config, predicted, asked), missed.square().mean())
    late = velocity_loss(config, predicted, batch(time=torch.tensor([0.3, 0.3])))
    later = velocity_loss(config, predicted, batch(time=torch.tensor([0.01, 0.01])))
    assert torch.isclose(late, later)


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_whoever_knows_the_answer_loses_nothing(prediction):
    asked = batch()
    answers = {
        "velocity": velocity(asked["latent"], asked["noise"]),
        "data": asked["latent"],
        "noise": asked["noise"],
    }
    assert velocity_loss(minute_config(prediction=prediction), answers[prediction], asked) == 0


def test_drops_are_independent_and_as_frequent_as_asked():
    random = torch.Generator().manual_seed(0)
    config, network = GenerationConfig(), minute_config(grid=(1, 1, 1))
    rows = [config.draw(network, random) for _ in range(4000)]
    drops = {
        name: torch.stack([row[name] for row in rows]).float() for name in rows[0] if name.startswith("drops")
    }
    for name, share in (("drops_content", 0.2), ("drops_style", 0.2), ("drops_spatial", 0.5)):
        assert abs(float(drops[name].mean()) - share) < 0.02
    together = torch.corrcoef(torch.stack([*drops.values(), torch.stack([row["time"] for row in rows])]))
    assert (together - torch.eye(4)).abs().max() < 0.05


def test_time_is_even_and_noise_normal():
    random = torch.Generator().manual_seed(0)
    rows = [GenerationConfig().draw(minute_config(), random) for _ in range(500)]
    times = torch.stack([row["time"] for row in rows]).sort().values
    assert (times - torch.linspace(0, 1, 500)).abs().max() < 0.08  # Kolmogorov's bound at 0.3 %
    noise = torch.stack([row["noise"] for row in rows])
    assert noise.shape == (500, 4, 8, 8, 8)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01


def test_a_step_can_be_drawn_again():
    first, second = (
        GenerationConfig().draw(minute_config(), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_content_of_places_is_zero_where_it_is_dropped_and_only_there():
    asked = batch(drops_spatial=torch.tensor([True, False]))
    given = conditions_of(asked)
    assert not given.spatial_content[0].any()
    assert torch.equal(given.spatial_content[1], asked["spatial_content"][1])


def test_a_dit_learns_at_the_thousand_steps_from_the_first():
    times = training_time(minute_config(prediction="noise"), torch.tensor([0.0, 0.0005, 0.0015, 0.9999]))
    assert torch.allclose(times, torch.tensor([0.001, 0.001, 0.002, 1.0]))
    even = torch.tensor([0.0, 0.3])
    assert training_time(minute_config(), even) is even


def test_a_dit_reads_latents_of_its_own_path(monkeypatch):
    objective = GenerationObjective(GenerationConfig(), minute_config(prediction="noise"))
    read = []
    plain = objective.student.predict
    monkeypatch.setattr(objective.student, "predict", lambda x, *rest: read.append(x) or plain(x, *rest))
    asked = batch()
    objective(asked, 0)
    expected = diffused(asked["latent"], asked["noise"], torch.tensor([0.301, 0.801]))
    assert torch.allclose(read[0], expected)


def test_a_new_generator_misses_the_whole_velocity():
    objective = GenerationObjective(GenerationConfig(), minute_config())
    asked = batch()
    expected = velocity(asked["latent"], asked["noise"]).square().mean()
    assert torch.isclose(objective(asked, 0)["total"], expected)


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_a_few_steps_learn_something(prediction):
    torch.manual_seed(0)
    objective = GenerationObjective(
        GenerationConfig(), minute_config(prediction=prediction, refinement_channels=4)
    )
    optimizer = torch.optim.AdamW(objective.student.parameters(), lr=1e-2)
    losses = []
    for step in range(20):
        loss = objective(batch(), step)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.finish_step(step)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_every_parameter_gets_a_gradient():
    objective = GenerationObjective(GenerationConfig(), minute_config(refinement_channels=4))
    awake(objective.student)
    objective(batch(drops_content=torch.tensor([True, False]), drops_style=torch.tensor([True, False])), 0)[
        "total"
    ].backward()
    null_progress = [
        name for name, parameter in objective.student.named_parameters() if parameter.grad is None
    ]
    assert null_progress == []


def test_the_average_follows_every_parameter_by_hand():
    objective = GenerationObjective(GenerationConfig(ema_decay=0.5), minute_config())
    before = objective.teacher.content.log_temperature.clone()
    with torch.no_grad():
        for parameter in objective.student.parameters():
            parameter.add_(1.0)
    objective.finish_step(step=10_000)
    assert torch.allclose(objective.teacher.content.log_temperature, before + 0.5)
    for slow, fast in zip(objective.teacher.parameters(), objective.student.parameters(), strict=True):
        assert torch.allclose(slow, fast - 0.5, atol=1e-6)


def test_a_young_average_forgets_its_start():
    config = GenerationConfig()
    assert ramped_decay(0, config.ema_decay) == 0.1
    assert ramped_decay(90, config.ema_decay) == 0.91
    assert ramped_decay(2_000_000, config.ema_decay) == 0.9999


def test_the_average_holds_no_gradient_and_is_a_generator():
    objective = GenerationObjective(GenerationConfig(), minute_config())
    assert isinstance(objective.teacher, Generator)
    assert not any(parameter.requires_grad for parameter in objective.teacher.parameters())


@pytest.mark.parametrize(
    "impossible", [{"drop_content": 1.1}, {"drop_style": -0.1}, {"drop_spatial": 2.0}, {"ema_decay": 1.0}]
)
def test_an_impossible_training_cannot_be_configured(impossible):
    with pytest.raises(ValueError, match="got"):
        GenerationConfig(**impossible)

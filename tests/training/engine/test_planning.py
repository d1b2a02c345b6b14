"""The plan of a run, compared with real tensors and a real step."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small import network

from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.engine.cost import count_activations, count_operations, count_weights, rows_of
from meduet_training.engine.planning import (
    Memory,
    StepTime,
    checkpoint_bytes,
    memory_of,
    plan_run,
    plan_table,
)
from meduet_training.runtime.fabric import Hardware
from meduet_training.runtime.optimizer import adamw
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.pretexts.masked import MaskedConfig
from napari_meduet.core.pretexts.masked_diffusion import MaskedDiffusionConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig
from napari_meduet.errors import InputError

VOXEL = ResidualUNetConfig(grid=(2, 1, 1), widths=(4, 8), num_blocks=(1, 1))
PRETEXTS = {
    "meduet": TrainingConfig(network=network(), objective=ObjectiveConfig.corrected(total_steps=10), batch=4),
    "mae": TrainingConfig(network=network(), objective=MaskedConfig(total_steps=10), batch=4),
    "mdae": TrainingConfig(network=network(), objective=MaskedDiffusionConfig(total_steps=10), batch=4),
    "mdae-voxel": TrainingConfig(network=VOXEL, objective=MaskedDiffusionConfig(total_steps=10), batch=4),
}
EVERY_PRETEXT = pytest.mark.parametrize("training", PRETEXTS.values(), ids=PRETEXTS)
ALONE = Hardware(device="cpu")


def size(tensors) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


@EVERY_PRETEXT
def test_weights_gradients_and_moments_are_counted_to_the_byte(training):
    objective = training.objective.build(training.network)
    optimizer = adamw(objective, learning_rate=1e-4, weight_decay=0.0, betas=(0.9, 0.95))
    objective(rows_of(training), training.total_steps - 1)["total"].backward()
    optimizer.step()
    teacher = [each for name, each in objective.named_parameters() if name.startswith("teacher.")]
    everything = [*objective.parameters(), *objective.buffers()]
    moments = [each for state in optimizer.state.values() for each in state.values()]

    weights = count_weights(training)
    memory = memory_of(weights, activations=7, strategy="ddp", recompute=False, num_processes=1)
    gradients = [each.grad for each in objective.parameters() if each.grad is not None]
    assert memory.weights + memory.teacher == size(everything)
    assert memory.teacher == size(teacher)
    assert memory.gradients == size(gradients)
    assert memory.optimizer == size(moments)
    assert memory.total == size(everything) + size(gradients) + size(moments) + 7
    saved = [*objective.state_dict().values(), *moments]
    assert checkpoint_bytes(weights) == size(saved)


def test_a_quarter_of_the_network_on_each_of_four_devices():
    weights = count_weights(PRETEXTS["meduet"])
    whole, part = (memory_of(weights, 0, strategy, False, 4) for strategy in ("ddp", "fsdp"))
    assert part.gradients == pytest.approx(whole.gradients / 4, abs=4)
    assert part.optimizer == pytest.approx(whole.optimizer / 4, abs=4 * weights.trained_tensors + 8)
    assert part.teacher == pytest.approx(whole.teacher / 4, abs=4)


def test_operations_are_three_forwards_counted_by_hand():
    # The encoder sees 54 of 216 tokens. The backward pass has twice the products of the forward pass.
    training = PRETEXTS["mae"]
    config = network(grid=(6, 6, 6), decoder_width=48)
    larger = replace(training, network=config)
    one, two = count_operations(larger, 2), count_operations(larger, 4)
    assert two == 2 * one
    width, decoder, visible, tokens = config.width, config.decoder_width, 54, config.num_tokens
    split = config.content_width + config.style_width
    embed = 2 * tokens * config.patch_values * width
    encode = 2 * visible * 12 * width**2 + 4 * visible**2 * width
    factors = 2 * tokens * (width * split + split * width + width * decoder)
    smooth = 2 * (2 * tokens * 27 * config.style_width)  # visible and hidden tokens, each channel alone
    decode = 2 * (tokens + 1) * 12 * decoder**2 + 4 * (tokens + 1) ** 2 * decoder
    decode += 2 * tokens * decoder * config.patch_values
    # The data need no gradient, so the backward pass of the embedding has one product only.
    assert one == 2 * (2 * embed + 3 * (encode + factors + smooth + decode))


def test_the_papers_network_is_counted_without_computing():
    # The weights of the blocks. Each makes six operations for a token; attention adds a little.
    training = replace(PRETEXTS["mae"], network=MeDUETConfig.base())
    encoder, decoder = 12 * 12 * 768**2, 8 * 12 * 384**2
    assert count_weights(training).trained == pytest.approx(encoder + decoder, rel=0.05)
    assert count_operations(training, 2) / 2 == pytest.approx(6 * (54 * encoder + 217 * decoder), rel=0.15)


MEASURED = """
from pathlib import Path
from meduet_training.engine.cost import count_activations, rows_of
from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
network = MeDUETConfig.tiny(depth=1, decoder_depth=1)
training = TrainingConfig(network=network, objective=ObjectiveConfig.corrected(total_steps=10))
objective = training.objective.build(training.network)
def step(rows):
    objective(rows_of(training, rows), training.total_steps - 1)["total"].backward()
step(2)  # allocates gradients and loads libraries
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
before = peak()
step(8)
grown = peak() - before
print(grown / (count_activations(training, 8, bf16=False, recompute=False)
               - count_activations(training, 2, bf16=False, recompute=False)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak alone")
def test_activations_are_within_a_third_of_the_measured_peak():
    # A separate process, because the peak of a process never falls: what eight rows need more than two.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert 0.75 < float(done.stdout) < 1.34


@pytest.mark.parametrize("bf16", [False, True])
def test_recomputing_and_half_precision_need_less(bf16):
    training = replace(PRETEXTS["meduet"], network=network(grid=(6, 6, 6), depth=3, decoder_depth=3))
    kept, recomputed = (
        count_activations(training, 2, bf16=bf16, recompute=recompute) for recompute in (False, True)
    )
    assert recomputed < kept / 2
    if bf16:
        assert kept < 0.7 * count_activations(training, 2, bf16=False, recompute=False)


def test_time_is_scaled_by_rows_but_for_the_update():
    assert StepTime(rows=2, gradient_s=3.0, update_s=0.5).scaled(64) == 96.5


def shown(plan) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(plan_table(plan))
    return console.export_text()


@EVERY_PRETEXT
def test_a_plan_is_one_table_and_writes_nothing(training, tmp_path):
    plan = plan_run(training, ALONE, TrainerOptions(keep=2), tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []
    assert plan.step_s > 0
    assert plan.warnings == ()
    words = shown(plan)
    for row in (
        "parameters, trained",
        "memory, activations of 4 rows",
        "scaled from 2 rows here",
        "10 steps",
    ):
        assert row in words
    assert "2 checkpoints, and one being written" in words


def test_several_processes_are_shown_both_ways_as_configured_first(tmp_path):
    plan = plan_run(
        PRETEXTS["meduet"],
        replace(ALONE, strategy="fsdp", recompute=True),
        TrainerOptions(),
        tmp_path,
        num_processes=2,
    )
    ways = [(memory.strategy, memory.recompute) for memory in plan.memory]
    assert ways == [("fsdp", True), ("ddp", False), ("ddp", True), ("fsdp", False)]
    assert plan.rows == 2
    assert "as configured (fsdp, recompute)" in shown(plan)


def test_what_does_not_fit_is_said_with_what_would_help(tmp_path, monkeypatch):
    monkeypatch.setattr("meduet_training.engine.planning.time_step", lambda *_, **__: None)
    training = replace(PRETEXTS["meduet"], network=network(depth=3))
    kept, recomputed = plan_run(training, ALONE, TrainerOptions(), tmp_path).memory
    assert recomputed.total < kept.total
    monkeypatch.setattr("meduet_training.engine.planning.free_bytes", lambda: kept.total - 1)
    plan = plan_run(training, ALONE, TrainerOptions(), tmp_path)
    (warning,) = plan.warnings
    assert "recompute it is" in warning
    monkeypatch.setattr("meduet_training.engine.planning.free_bytes", lambda: 1000)
    plan = plan_run(training, ALONE, TrainerOptions(), tmp_path)
    assert "its weights alone do not fit" in plan.warnings[0]
    assert plan.step_time is None
    assert "not measured" in shown(plan)
    crowded = replace(plan, disk_free=0)
    assert "make room, or keep fewer checkpoints" in crowded.warnings[1]


def test_a_cache_that_is_there_is_listed_and_takes_no_room(tmp_path):
    (tmp_path / "latents").write_bytes(b"0" * 1000)
    plan = plan_run(PRETEXTS["mae"], ALONE, TrainerOptions(), Path("."), cache=tmp_path / "latents")
    assert plan.disk["cache, there already"] == 1000


def test_a_batch_that_does_not_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not split into pairs for 4 processes"):
        plan_run(PRETEXTS["meduet"], ALONE, TrainerOptions(), tmp_path, num_processes=4)


def test_a_memory_is_the_sum_of_its_parts():
    parts = {"weights": 1, "teacher": 2, "gradients": 4, "optimizer": 8, "activations": 16}
    assert Memory(strategy="ddp", recompute=False, **parts).total == 31


def test_measuring_leaves_the_random_numbers_as_they_were(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    plan_run(PRETEXTS["mae"], ALONE, TrainerOptions(), tmp_path)
    assert torch.equal(torch.rand(2), expected)

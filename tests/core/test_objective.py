import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import pytest
import torch

from napari_meduet.core.demixing import draw_mask
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Batch, Objective, ObjectiveConfig, pretraining_loss
from napari_meduet.core.siqc import LARGEST_LOG_SCALE

# A grid of 2^3 tokens and one block each: a complete step in milliseconds.
SMALL = MeDUETConfig.tiny(
    grid=(2, 2, 2), width=24, depth=1, heads=2, content_width=24, style_width=6,
    decoder_width=24, decoder_depth=1, decoder_heads=2, num_domains=3,
)  # fmt: skip
BEFORE, AFTER = 1, 2  # distillation starts at 20 % of ten steps

PRESETS = {"corrected": ObjectiveConfig.corrected, "paper": ObjectiveConfig.paper}
EVERY_PRESET = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
VARIANTS = [
    {},
    {"pairing": "cross_domain", "scope": "global", "aligned_weight": 1.0, "aligned_content_weight": 0.1},
    *({"without": (term,)} for term in ("domain", "mftd", "siqc", "disentangle", "demix")),
]


def a_batch(num_volumes: int = 4, *, aligned: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(num_volumes)
    batch: Batch = {
        "latent": torch.randn(num_volumes, 4, 8, 8, 8),
        "domain": torch.tensor([0, 1, 2, -1] * num_volumes)[:num_volumes],
        "partner": torch.arange(num_volumes - 1, -1, -1),
        "mask": torch.stack([draw_mask(8, 0.5, generator) for _ in range(num_volumes)]),
    }
    if aligned:
        batch["aligned_target"], batch["style_reference"] = torch.randn(2, num_volumes, 4, 8, 8, 8)
    return batch


def an_objective(config: ObjectiveConfig, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    return Objective(SMALL, config)


def counted(objective: Objective) -> Counter:
    """Count the samples that pass through student and teacher."""
    samples = Counter()
    for name, network in (
        ("student encodes", objective.student.encoder),
        ("student decodes", objective.student.decoder),
        ("teacher encodes", objective.teacher.encoder),
        ("teacher decodes", objective.teacher.decoder),
    ):
        network.register_forward_pre_hook(
            lambda _, inputs, name=name: samples.update({name: inputs[0].shape[0]})
        )
    return samples


def test_equation_13_by_hand():
    terms = [torch.tensor(value) for value in (1.0, 2.0, 3.0, 4.0)]
    total = pretraining_loss(*terms, domain_weight=0.2, distillation_weight=0.5, contrast_weight=0.3)
    assert torch.isclose(total, torch.tensor(1 + 0.4 + 1.5 + 1.2))


@EVERY_PRESET
def test_the_total_is_the_weighted_sum_of_what_is_returned(preset):
    losses = an_objective(preset(total_steps=10))(a_batch(), AFTER)
    expected = losses["reconstruction"] + 0.2 * losses["domain"]
    expected = expected + 0.5 * losses["distillation"] + 0.3 * losses["contrast"]
    expected = expected + 0.25 * losses.get("full", 0.0)
    assert torch.isclose(losses["total"], expected)


def test_the_presets_differ_in_nothing_but_the_options_of_the_corrections():
    corrected, paper = asdict(ObjectiveConfig.corrected()), asdict(ObjectiveConfig.paper())
    assert {name: paper[name] for name in paper if paper[name] != corrected[name]} == {
        "pairing": "flip",
        "reconstruction_reduction": "sum",  # Eq. 1
        "domain_reduction": "sum",  # C-09
        "distillation_scale": 1.0,  # C-16
        "teacher_input": "recovered",  # C-14
        "contrast_scale": "per_factor",
        "scope": "quadruplet",
        "style_negatives": "all",  # C-20
        "full_weight": 0.0,  # C-04
    }


def test_the_minimal_passes_of_a_step():
    objective, batch = an_objective(ObjectiveConfig.corrected(total_steps=10)), a_batch(4)
    samples = counted(objective)
    objective(batch, AFTER)
    # B = 4. Student: mixtures B, volumes B, recovered 2B, swaps B; the swap ji is the partner's swap ij.
    # Decoder: both volumes of each mixture 2B, full B, swaps B. Teacher: volumes B, swaps B.
    assert samples == {"student encodes": 20, "student decodes": 16, "teacher encodes": 8}


def test_passes_nobody_needs_are_not_made():
    objective = an_objective(ObjectiveConfig.corrected(total_steps=10))
    samples = counted(objective)
    objective(a_batch(4), BEFORE)
    assert samples == {"student encodes": 12, "student decodes": 16, "teacher encodes": 8}

    objective = an_objective(ObjectiveConfig.paper(total_steps=10))
    samples = counted(objective)
    objective(a_batch(4), AFTER)  # the teacher also reads both recovered volumes; no full reconstruction
    assert samples == {"student encodes": 20, "student decodes": 12, "teacher encodes": 16}


@EVERY_PRESET
def test_distillation_starts_at_a_fifth_of_the_steps(preset):
    objective, batch = an_objective(preset(total_steps=10)), a_batch()
    with torch.no_grad():
        for parameter in objective.teacher.parameters():
            parameter.mul_(1.1)  # so that teacher and student differ even for equal inputs
    assert objective(batch, BEFORE)["distillation"] == 0
    assert objective(batch, AFTER)["distillation"] > 0


@EVERY_PRESET
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_whatever_is_trained_has_a_gradient_and_the_teacher_none(preset, changes):
    objective = an_objective(preset(total_steps=10, **changes))
    objective(a_batch(aligned=True), AFTER)["total"].backward()
    for name, parameter in objective.named_parameters():
        trained = parameter.requires_grad
        assert trained == (parameter.grad is not None), name
        assert trained != name.startswith("teacher.") or "_domain." in name
        assert not trained or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("term", "gone"),
    [
        ("domain", {"domain"}),
        ("mftd", {"distillation"}),
        ("siqc", {"contrast"}),
        ("disentangle", {"domain", "distillation", "contrast"}),
        (
            "demix",
            {"distillation", "full"},
        ),  # nothing is hidden; the full reconstruction is the reconstruction
    ],
)
def test_each_ablation_takes_its_terms_away(term, gone):
    everything = {"reconstruction", "full", "domain", "distillation", "contrast", "total"}
    losses = an_objective(ObjectiveConfig.corrected(total_steps=10, without=(term,)))(a_batch(), AFTER)
    assert set(losses) == (everything - gone) | {"norm.content", "norm.style"}


def test_c04_full_reconstruction_trains_what_a_swap_uses():
    # Without hidden tokens the decoder reads only content and style, as in a swap.
    objective = an_objective(ObjectiveConfig.corrected(total_steps=10))
    full = objective(a_batch(), BEFORE)["full"]
    hidden, constant = torch.autograd.grad(
        full, [objective.student.decoder.hidden_token, objective.student.decoder.constant]
    )
    assert hidden.abs().sum() == 0
    assert constant.abs().sum() > 0


def test_c04_the_full_reconstruction_is_of_the_whole_volume():
    objective, batch = an_objective(ObjectiveConfig.corrected()), a_batch()
    student = objective.student
    expected = (student.decode(*student.encode(batch["latent"])) - batch["latent"]).square().mean()
    assert torch.isclose(objective(batch, 0)["full"], expected)


@pytest.mark.parametrize(("preset", "sees_clean"), [("corrected", True), ("paper", False)])
def test_c14_the_teacher_distils_from_clean_latents(preset, sees_clean):
    config = PRESETS[preset](total_steps=10, without=("siqc",))
    objective, batch, seen = an_objective(config), a_batch(), []
    objective.teacher.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective(batch, AFTER)
    (latents,) = seen
    assert torch.equal(latents, batch["latent"]) == sees_clean
    assert len(latents) == (4 if sees_clean else 8)


def test_c14_a_student_that_recovers_everything_has_nothing_to_distil():
    # Teacher and student are equal at first, so distillation from clean latents measures recovery alone.
    objective = an_objective(ObjectiveConfig.corrected(total_steps=10))
    batch = a_batch() | {"latent": torch.zeros(4, 4, 8, 8, 8)}
    with torch.no_grad():
        objective.student.decoder.prediction.weight.zero_()  # biases are 0: every volume is recovered as 0
    assert objective(batch, AFTER)["distillation"] < 1e-10


def test_c23_the_scale_is_optimised_checkpointed_and_comes_back_from_its_bound():
    objective = an_objective(ObjectiveConfig.corrected(total_steps=10))
    assert "log_scale" in dict(objective.named_parameters())
    assert "log_scale" in objective.state_dict()
    with torch.no_grad():
        objective.log_scale.fill_(9.0)
    objective.finish_step(0)
    assert objective.log_scale == torch.tensor(LARGEST_LOG_SCALE)
    objective(a_batch(), BEFORE)["contrast"].backward()
    assert objective.log_scale.grad.abs() > 0


def test_the_teacher_follows_the_student_only_when_a_step_is_finished():
    objective = an_objective(ObjectiveConfig.corrected(total_steps=10))
    before = [parameter.clone() for parameter in objective.teacher.parameters()]
    with torch.no_grad():
        for parameter in objective.student.parameters():
            parameter.add_(1)
    assert all(map(torch.equal, before, objective.teacher.parameters()))
    objective.finish_step(0)
    for old, new in zip(before, objective.teacher.parameters(), strict=True):
        assert torch.allclose(new - old, torch.tensor(0.003), atol=1e-6)


def test_unlabelled_volumes_do_not_enter_the_domain_loss():
    objective = an_objective(ObjectiveConfig.corrected())
    losses = objective(a_batch() | {"domain": torch.full((4,), -1)}, 0)
    assert losses["domain"] == 0
    assert losses["contrast"] > 0


def test_a_batch_gives_the_same_losses_to_the_last_bit():
    objective, batch = an_objective(ObjectiveConfig.corrected(total_steps=10)), a_batch()
    runs = [objective(batch, AFTER) for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_an_aligned_swap_into_ones_own_style_is_the_full_reconstruction():
    # A volume without a true partner is its own target, so its style is shifted by 0.
    objective = an_objective(ObjectiveConfig.corrected(aligned_weight=1.0, aligned_content_weight=1.0))
    batch = a_batch()
    batch |= {"aligned_target": batch["latent"], "style_reference": batch["latent"]}
    losses = objective(batch, 0)
    assert torch.isclose(losses["aligned"], losses["full"])
    assert losses["aligned_content"] == 0


def test_air_can_be_left_out_of_the_aligned_styles():
    objective = an_objective(ObjectiveConfig.corrected(aligned_weight=1.0))
    batch = a_batch(aligned=True)
    body = torch.zeros(4, 8)
    body[:, :3] = 1
    whole = objective(batch, 0)["aligned"]
    inside = objective(batch | {"coverage": body, "style_reference_coverage": 1 - body}, 0)["aligned"]
    assert not torch.isclose(whole, inside)


def test_an_aligned_objective_without_truth_says_what_is_missing():
    with pytest.raises(ValueError, match="aligned_target and style_reference"):
        an_objective(ObjectiveConfig.corrected(aligned_weight=1.0))(a_batch(), 0)


def test_learning_lowers_the_loss():
    objective = an_objective(ObjectiveConfig.corrected(total_steps=10))
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    batch, totals = a_batch(8), []
    for step in range(15):
        loss = objective(batch, AFTER)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.finish_step(step)
        totals.append(loss.item())
    assert sum(totals[-3:]) < 0.7 * sum(totals[:3])


@pytest.mark.parametrize(
    "changes",
    [
        {"domain_weight": -1.0},
        {"mixing_ratio": 1.0},
        {"distillation_start": 2.0},
        {"total_steps": 0},
        {"pairing": "typo"},
        {"scope": "typo"},
        {"style_negatives": "typo"},
        {"teacher_input": "typo"},
        {"domain_reduction": "typo"},
        {"without": ("typo",)},
    ],
    ids=str,
)
def test_an_objective_that_cannot_work_cannot_be_configured(changes):
    # Built without the shape checks, which would refuse wrong values before the configuration does.
    config = object.__new__(ObjectiveConfig)
    for name, value in (asdict(ObjectiveConfig()) | changes).items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=r"negative|between|fraction|at least 1|one of"):
        config.__post_init__()


ONE_OF_TWO_PROCESSES = """
import os, torch
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Objective, ObjectiveConfig
rank = int(os.environ["RANK"])
meeting_point = "file://" + os.environ["MEETING_POINT"]
torch.distributed.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=2)
torch.manual_seed(0)
objective = Objective(MeDUETConfig(**{network}), ObjectiveConfig(scope="global"))
batch = torch.load(os.environ["BATCH"], weights_only=True)
mine = {name: rows[2 * rank : 2 * rank + 2] for name, rows in batch.items()}
mine |= dict(partner=torch.tensor([1, 0]), labelled_fraction=torch.tensor(0.75))
losses = objective(mine, 150_000)
losses["total"].backward()
of_rank = {name: value.detach() for name, value in losses.items()}
of_rank |= {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
for value in of_rank.values():
    torch.distributed.all_reduce(value)
    value /= 2
if rank == 0:
    torch.save(of_rank, os.environ["RESULT"])
"""


def test_two_processes_compute_losses_and_gradients_of_the_whole_batch(tmp_path):
    """The mean over both processes equals the losses and gradients of one process."""
    objective = an_objective(ObjectiveConfig(scope="batch"))
    batch = a_batch() | {"partner": torch.tensor([1, 0, 3, 2])}
    losses = objective(batch, 150_000)
    losses["total"].backward()
    alone = {name: value.detach() for name, value in losses.items()}
    alone |= {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}

    torch.save(batch, tmp_path / "batch")
    script = ONE_OF_TWO_PROCESSES.replace("{network}", repr(asdict(SMALL)))
    names = {"MEETING_POINT": "meeting-point", "BATCH": "batch", "RESULT": "result"}
    environment = os.environ | {variable: str(tmp_path / name) for variable, name in names.items()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    together = torch.load(tmp_path / "result", weights_only=True)
    assert together.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_step_is_one_graph_for_the_compiler():
    script = """
import torch
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Objective, ObjectiveConfig
objective = Objective(MeDUETConfig(**{network}), ObjectiveConfig(aligned_weight=1.0))
latent = torch.randn(4, 4, 8, 8, 8)
batch = dict(
    latent=latent, domain=torch.tensor([0, 1, -1, 2]), aligned_target=latent, style_reference=latent,
    partner=torch.tensor([1, 0, 3, 2]), mask=torch.tensor([[1.0, 0.0] * 4] * 4),
)
torch.compile(objective, backend="eager", fullgraph=True)(batch, 0)["total"].backward()
""".replace("{network}", repr(asdict(SMALL)))
    # A separate process, because the shape checks of this process break compilation.
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

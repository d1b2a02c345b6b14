"""Algorithm 1 with networks of known outputs: which rows, masks and labels enter each loss.

The first half of a patch is its content, the second its style, and the decoder joins both halves. Therefore
every loss has a value that can be computed by hand, and a wrong row, mask or label gives another value.
"""

import math
from functools import partial

import pytest
import torch
from torch import nn

from napari_meduet.core.demixing import draw_mask
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Objective, ObjectiveConfig
from napari_meduet.core.patches import patchify, unpatchify

NETWORK = MeDUETConfig.tiny(
    grid=(2, 2, 2), width=24, depth=1, heads=2, decoder_width=24, decoder_depth=1, decoder_heads=2,
    num_domains=4,
)  # fmt: skip
HALF = NETWORK.patch_values // 2


def split(latent, mask=None):
    return patchify(latent, NETWORK.patch_size).split(HALF, dim=-1)


class Joiner(nn.Module):
    """Decodes tokens into their patches; hidden tokens stay 0 or show the partner's patches."""

    def __init__(self, *, shows_hidden: bool) -> None:
        super().__init__()
        self.shows_hidden = shows_hidden

    def fuse(self, content, style):
        return torch.cat([content, style], dim=-1)

    def forward(self, fused, visible):
        patches = fused if self.shows_hidden else fused * visible.unsqueeze(-1)
        return unpatchify(patches, NETWORK.grid, NETWORK.patch_size)


def known_answers(config: ObjectiveConfig, *, shows_hidden: bool = False) -> Objective:
    objective = Objective(NETWORK, config)
    objective.student.encode = objective.teacher.encode = split
    objective.student.decoder = Joiner(shows_hidden=shows_hidden)
    return objective


def constant_volumes(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1, 1).expand(-1, *NETWORK.latent_shape).contiguous()


def masks(num_volumes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([draw_mask(NETWORK.num_tokens, 0.5, generator) for _ in range(num_volumes)])


only = partial(ObjectiveConfig.corrected, total_steps=10)
BATCH = {
    "latent": constant_volumes(1.0, 2.0, 3.0, 4.0),
    "domain": torch.tensor([0, 1, 2, 3]),
    "partner": torch.tensor([3, 2, 1, 0]),
    "mask": masks(4),
}


def test_c01_each_volume_is_recovered_from_its_own_visible_tokens():
    losses = known_answers(only(without=("disentangle",)))(BATCH, 0)
    # Half of each volume is hidden and recovered as 0: (1 + 4 + 9 + 16) / 4 / 2.
    assert losses["reconstruction"] == 3.75
    assert losses["full"] == 0


def test_the_papers_text_sums_the_reconstructions_of_both_volumes():
    # Eq. 1 as printed, term by term: the squared error of i and of j, averaged over values, then summed.
    losses = known_answers(ObjectiveConfig.paper(total_steps=10, without=("disentangle",)))(BATCH, 0)
    literal = 0.0
    for row, partner in enumerate(BATCH["partner"].tolist()):
        for volume, hidden in ((row, BATCH["mask"][row]), (partner, 1 - BATCH["mask"][row])):
            literal += float(hidden.mean()) * (volume + 1.0) ** 2 / 4  # hidden tokens are recovered as 0
    assert literal == 7.5  # twice the 3.75 of the corrected preset
    assert losses["reconstruction"] == literal


@pytest.mark.parametrize(
    ("preset", "num_scales"), [(ObjectiveConfig.corrected, 1), (ObjectiveConfig.paper, 2)]
)
def test_only_the_papers_text_has_a_scale_for_each_factor(preset, num_scales):
    assert known_answers(preset(total_steps=10)).log_scale.shape == (num_scales,)


def literal_contrast(queries, keys, identities, alpha):
    """Eqs. 8-11 of one quadruplet in loops: queries are the student's four views, keys the teacher's."""
    total = 0.0
    for a in range(4):
        others = [b for b in range(4) if b != a]
        similarity = {b: alpha * float(queries[a] @ keys[b]) for b in others}
        normaliser = sum(math.exp(value) for value in similarity.values())
        positives = [b for b in others if identities[b] == identities[a]]
        total -= sum(math.log(math.exp(similarity[b]) / normaliser) for b in positives) / len(positives)
    return total / 4


def test_each_factor_is_contrasted_at_its_own_scale_in_the_papers_text():
    objective = known_answers(ObjectiveConfig.paper(total_steps=10))
    alpha_content, alpha_style = 2.0, 5.0
    with torch.no_grad():
        objective.log_scale.copy_(torch.tensor([alpha_content, alpha_style]).log())
    views = torch.nn.functional.normalize(torch.randn(2, 4, 6) - 0.1, dim=-1)  # of student and of teacher
    views = views - views.mean(dim=-1, keepdim=True)  # tokens that layer norm only scales
    views = torch.nn.functional.normalize(views, dim=-1)
    encoded, targets = (
        {"clean": (each[:2, None], each[:2, None]), "swap": (each[2:, None], each[2:, None])}
        for each in views
    )
    loss = objective._contrast_loss(encoded, targets, torch.tensor([0, 1]), torch.tensor([1, 0]))
    queries, keys = views
    content = literal_contrast(queries, keys, "ijij", alpha_content)
    style = literal_contrast(queries, keys, "ijji", alpha_style)
    assert loss.item() == pytest.approx(content + style, rel=1e-4)


def test_hidden_tokens_are_distilled_from_their_own_volume():
    losses = known_answers(only(without=("domain", "siqc")), shows_hidden=True)(BATCH, 9)
    # Recovered volumes keep the partner's tokens where their own are hidden. Pairs are 1-4 and 2-3, so the
    # squared distances are 9, 1, 1, 9, mean 5, in content (weight 1/2) and in style; twice their sum.
    assert losses["distillation"] == pytest.approx(2 * (0.5 * 5 + 5))


def test_the_papers_teacher_agrees_with_whatever_was_recovered():
    config = ObjectiveConfig.paper(total_steps=10, without=("domain", "siqc"))
    assert known_answers(config, shows_hidden=True)(BATCH, 9)["distillation"] == 0


def test_each_side_of_a_mixture_is_classified_under_its_own_label():
    objective = known_answers(only(without=("mftd", "siqc")))
    seen = []

    def read_value(content, style):
        value = content.mean(dim=-1)  # the value of the volume, unless tokens of two volumes were averaged
        seen.append(value)
        logits = -1e3 * (value.unsqueeze(-1) - torch.tensor([1.0, 2.0, 3.0, 4.0])).abs()
        return logits, logits

    objective.student.domain_logits = read_value
    assert objective(BATCH, 0)["domain"] == 0
    assert [value.tolist() for value in seen] == [[1, 2, 3, 4], [4, 3, 2, 1]]


@pytest.mark.parametrize("scope", ["quadruplet", "batch"])
@pytest.mark.parametrize("partner", [[3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]], ids=str)
def test_perfect_factors_leave_the_contrast_nothing_to_say(scope, partner):
    codes = torch.eye(HALF)[:8]  # a different content and style code for each of four volumes
    patches = torch.cat([codes[:4], codes[4:]], dim=-1)[:, None].expand(-1, NETWORK.num_tokens, -1)
    latent = unpatchify(patches.contiguous(), NETWORK.grid, NETWORK.patch_size)
    config = ObjectiveConfig.corrected(total_steps=10, scope=scope)
    objective = known_answers(config)
    objective.student.domain_logits = lambda content, style: (torch.zeros(len(content), 4),) * 2
    losses = objective(BATCH | {"latent": latent, "partner": torch.tensor(partner)}, 0)
    # Cosines 1 and almost 0 at scale 1 / 0.07 leave at most six negatives of exp(-14).
    assert losses["contrast"] < 1e-4


def test_the_aligned_swap_is_the_default_swap():
    # Target and reference are the volumes with 10 added to their style, so the true shift is 10.
    in_other_style = unpatchify(
        patchify(BATCH["latent"], NETWORK.patch_size) + 10.0 * (torch.arange(2 * HALF) >= HALF),
        NETWORK.grid,
        NETWORK.patch_size,
    )
    pairs = BATCH | {"aligned_target": in_other_style, "style_reference": in_other_style}
    config = only(without=("disentangle",), aligned_weight=1.0, aligned_content_weight=1.0)
    losses = known_answers(config)(pairs, 0)
    assert losses["aligned"] == 0
    assert losses["aligned_content"] == 0

"""The pretraining objective: student, teacher and all losses of a step (Algorithm 1, Eq. 13).

`Objective` contains everything that is trained and the teacher, so there is one optimizer and one checkpoint.
One forward pass returns all losses, so DDP and torch.compile see one graph. It draws no random numbers: pairs
and masks come with the batch. Each encoder or decoder pass takes all rows that are ready, and no row is
computed twice. The losses are functions in `demixing.py`, `disentanglement.py`, `mftd.py`, `siqc.py` and
`alignment.py`; this file runs the networks. Section 5 of the specification defines the losses.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NotRequired, TypedDict, get_args

import torch
import torch.distributed
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from napari_meduet.core.alignment import aligned_swap_loss, content_agreement_loss
from napari_meduet.core.demixing import Pairing, PairReduction, draw_mask, mix, reconstruction_loss
from napari_meduet.core.disentanglement import domain_cross_entropy, domain_loss
from napari_meduet.core.factors import style_statistics, weighted_mean
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.mftd import factor_distillation, mixed_factor_distillation, token_distance
from napari_meduet.core.options import Ablation
from napari_meduet.core.siqc import (
    INITIAL_LOG_SCALE,
    LARGEST_LOG_SCALE,
    Scope,
    StyleNegatives,
    ViewLabels,
    compared_styles,
    compared_views,
    pooled_view,
    positive_pairs,
    supervised_contrast,
    swap_contrast,
    swap_styles,
    view_labels,
    view_similarity,
)
from napari_meduet.core.swapping import shift_style
from napari_meduet.core.teacher import teacher_decay, update_teacher

ContrastScale = Literal["shared", "per_factor"]
TeacherInput = Literal["clean", "recovered"]

# Content and style tokens, as MeDUET.encode returns them.
Factors = tuple[Float[Tensor, "B L Dc"], Float[Tensor, "B L Ds"]]
Latents = Mapping[str, Float[Tensor, "B C X Y Z"]]


class Batch(TypedDict):
    """Input of one step; latents are standardised per channel.

    Attributes:
        domain: domain of each volume; -1 means unlabelled.
        partner: row of the volume that is mixed into this one. The partner's partner is this row.
        mask: 1 where the token comes from the partner.
        labelled_fraction: fraction of labelled volumes in the whole batch of the step, if these rows are a
            shard of it (disentanglement.py).
        aligned_target: the anatomy of `latent` in another style (alignment.py). A volume without a true
            target may be its own target, with another crop of the same scan as reference: a swap into its own
            style must change nothing.
        style_reference: another crop in the style of `aligned_target`.
        coverage, style_reference_coverage: fraction of body in each token of `latent` and of
            `style_reference`. Without them, air counts in the style statistics of the aligned swap.
    """

    latent: Float[Tensor, "B C X Y Z"]
    domain: Int[Tensor, "B"]
    partner: Int[Tensor, "B"]
    mask: Float[Tensor, "B L"]
    labelled_fraction: NotRequired[Float[Tensor, ""]]
    aligned_target: NotRequired[Float[Tensor, "B C X Y Z"]]
    style_reference: NotRequired[Float[Tensor, "B C X Y Z"]]
    coverage: NotRequired[Float[Tensor, "B L"]]
    style_reference_coverage: NotRequired[Float[Tensor, "B L"]]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights and options of the losses; the defaults are the preset `corrected`.

    Tags name the corrections of the paper. docs/departures.md explains each of them.
    """

    total_steps: int = 200_000  # specification, section 6; drives the schedules of distillation and teacher
    mixing_ratio: float = 0.5  # fraction of tokens that come from the partner (specification, section 5)
    pairing: Pairing = "random"
    reconstruction_reduction: PairReduction = "mean"  # Eq. 1 sums over i and j
    domain_weight: float = 0.2  # Eq. 13
    domain_reduction: PairReduction = "mean"  # C-09
    distillation_weight: float = 0.5  # Eq. 13
    distillation_start: float = 0.2  # fraction of the steps; the teacher is stable by then (Sec. 4.1)
    distillation_scale: float = 2.0  # C-16
    content_weight: float = 0.5  # lambda_c in Eq. 6, Table 9
    teacher_input: TeacherInput = "clean"  # C-14
    contrast_weight: float = 0.3  # Eq. 13
    contrast_scale: ContrastScale = "shared"  # the paper has alpha_c and alpha_s
    scope: Scope = "batch"
    style_negatives: StyleNegatives = "exclude_same_domain"  # C-20
    full_weight: float = 0.25  # C-04: reconstruction of volumes that are not mixed
    aligned_weight: float = 0.0  # this project: swaps with a known result
    aligned_content_weight: float = 0.0  # this project: equal content of one anatomy in two styles
    without: tuple[Ablation, ...] = ()  # Tables 5 and 6

    def __post_init__(self) -> None:
        for name, choices in (
            ("pairing", Pairing),
            ("reconstruction_reduction", PairReduction),
            ("domain_reduction", PairReduction),
            ("contrast_scale", ContrastScale),
            ("teacher_input", TeacherInput),
            ("scope", Scope),
            ("style_negatives", StyleNegatives),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {get_args(choices)}; got {getattr(self, name)!r}.")
        if unknown := set(self.without) - set(get_args(Ablation)):
            raise ValueError(f"An ablation must be one of {get_args(Ablation)}; got {sorted(unknown)}.")
        for name in (
            "domain_weight",
            "distillation_weight",
            "content_weight",
            "contrast_weight",
            "full_weight",
            "aligned_weight",
            "aligned_content_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} scales a loss and cannot be negative; got {getattr(self, name)}.")
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1; got {self.total_steps}.")
        if not 0 < self.mixing_ratio < 1:
            raise ValueError(f"mixing_ratio must be between 0 and 1; got {self.mixing_ratio}.")
        if not 0 <= self.distillation_start <= 1:
            raise ValueError(
                f"distillation_start is a fraction of the steps, 0 to 1; got {self.distillation_start}."
            )

    @classmethod
    def corrected(cls, **changes: Any) -> "ObjectiveConfig":
        """MeDUET v1 with the corrections of docs/departures.md."""
        return replace(cls(), **changes)

    @classmethod
    def paper(cls, **changes: Any) -> "ObjectiveConfig":
        """MeDUET v1 as its text says."""
        text = cls(
            pairing="flip",
            reconstruction_reduction="sum",
            domain_reduction="sum",
            distillation_scale=1.0,
            teacher_input="recovered",
            contrast_scale="per_factor",
            scope="quadruplet",
            style_negatives="all",
            full_weight=0.0,
        )
        return replace(text, **changes)

    @property
    def demixes(self) -> bool:
        return "demix" not in self.without

    def _keeps(self, term: Ablation) -> bool:
        return term not in self.without and "disentangle" not in self.without

    @property
    def classifies_domains(self) -> bool:
        return self._keeps("domain")

    @property
    def contrasts(self) -> bool:
        return self._keeps("siqc")

    @property
    def distils(self) -> bool:
        """Whether the run distils factors at all. Without a mixture no factor is hidden."""
        return self._keeps("mftd") and self.demixes

    @property
    def aligns(self) -> bool:
        return self.aligned_weight > 0 or self.aligned_content_weight > 0

    def has_distillation_started(self, step: int) -> bool:
        return self.distils and step >= self.distillation_start * self.total_steps

    def draw(self, network: MeDUETConfig, generator: Generator) -> dict[str, Float[Tensor, "L"]]:
        """Return the random numbers of one row of a batch: its mask."""
        return {"mask": draw_mask(network.num_tokens, self.mixing_ratio, generator)}

    def build(self, network: MeDUETConfig) -> "Objective":
        """Build student and teacher of this network under this objective."""
        return Objective(network, self)


def pretraining_loss(
    reconstruction: Float[Tensor, ""],
    domain: Float[Tensor, ""],
    distillation: Float[Tensor, ""],
    contrast: Float[Tensor, ""],
    *,
    domain_weight: float,
    distillation_weight: float,
    contrast_weight: float,
) -> Float[Tensor, ""]:
    """Weighted sum of the four objectives. Eq. (13)."""
    return (
        reconstruction
        + domain_weight * domain
        + distillation_weight * distillation
        + contrast_weight * contrast
    )


class Objective(nn.Module):
    """Student, teacher and all losses of a pretraining step.

    Attributes:
        student: the network that the optimizer trains.
        teacher: exponential moving average of the student.
        log_scale: logarithm of the contrast's scale alpha; one number for both factors, or one for content
            and one for style. It is a vector because FSDP cannot shard scalars.
    """

    def __init__(self, network: MeDUETConfig, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config
        self.student = MeDUET(network)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        # DDP waits for a gradient of every trainable parameter, so an ablated term must not have any.
        if not config.classifies_domains:
            self.student.content_domain.requires_grad_(False)
            self.student.style_domain.requires_grad_(False)
        if config.contrasts:
            num_scales = 2 if config.contrast_scale == "per_factor" else 1
            self.log_scale = nn.Parameter(torch.full((num_scales,), INITIAL_LOG_SCALE))

    def forward(self, batch: Batch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Return each loss of the batch, unweighted, and their weighted sum as `total`.

        The mean norms of the volumes' tokens, `norm.content` and `norm.style`, are returned for monitoring.
        """
        config = self.config
        latent, partner, mask = batch["latent"], batch["partner"], batch["mask"]
        distils = config.has_distillation_started(step)

        # Mix each volume with its partner; encode the mixtures and the volumes themselves.
        nothing = torch.zeros_like(mask)
        to_encode = {"clean": (latent, nothing)}
        if config.demixes:
            mixture = mix(latent, latent[partner], mask, self.student.config.grid)
            to_encode["mixture"] = (mixture, mask)
        if config.aligns:
            if "aligned_target" not in batch or "style_reference" not in batch:
                raise ValueError(
                    "aligned_weight and aligned_content_weight need pairs with a known result: add "
                    "aligned_target and style_reference to each batch, or set both weights to 0."
                )
            if config.aligned_content_weight > 0:
                to_encode["target"] = (batch["aligned_target"], nothing)
            to_encode["reference"] = (batch["style_reference"], nothing)
        encoded = _in_one_pass(self.student.encode, to_encode)

        # Decode both volumes of each mixture, each volume from all its tokens, and each swap.
        decoded = self._decode(batch, encoded)

        # Encode the decoded latents again; the teacher encodes its targets.
        recovered = {side: (decoded[side],) for side in ("i", "j")} if distils else {}
        swaps = {"swap": (decoded["swap"],)} if config.contrasts else {}
        encoded |= _in_one_pass(self.student.encode, recovered | swaps)
        targets = self._teacher_factors(latent, decoded, distils=distils)

        # Compute the losses.
        losses = self._reconstruction_losses(latent, decoded, partner)
        if config.classifies_domains:
            losses["domain"] = self._domain_loss(encoded, batch)
        if config.distils:
            losses["distillation"] = (
                self._distillation_loss(encoded, targets, mask, partner) if distils else latent.new_zeros(())
            )
        if config.contrasts:
            losses["contrast"] = self._contrast_loss(encoded, targets, batch["domain"], partner)
        if config.aligns:
            target = batch.get("aligned_target")
            assert target is not None, "checked above"
            losses["aligned"] = aligned_swap_loss(decoded["aligned"], target)
        if config.aligned_content_weight > 0:
            losses["aligned_content"] = content_agreement_loss(encoded["clean"][0], encoded["target"][0])
        norms = zip(("norm.content", "norm.style"), encoded["clean"], strict=True)
        monitored = {name: tokens.detach().float().norm(dim=-1).mean() for name, tokens in norms}
        return losses | {"total": self._total(losses)} | monitored

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """Update the teacher after an optimizer step, and clamp the contrast's scale to its bound.

        Above the bound the gradient of the scale is 0, so without the clamp it would stay there (C-23).
        """
        update_teacher(self.teacher, self.student, teacher_decay(step, self.config.total_steps))
        if self.config.contrasts:
            self.log_scale.clamp_(max=LARGEST_LOG_SCALE)

    def _decode(self, batch: Batch, encoded: Mapping[str, Factors]) -> dict[str, Float[Tensor, "B C X Y Z"]]:
        config, decoder, mask = self.config, self.student.decoder, batch["mask"]
        everything = torch.ones_like(mask)
        content, style = encoded["clean"]
        to_decode = {}
        if config.demixes:
            fused = decoder.fuse(*encoded["mixture"])
            to_decode |= {"i": (fused, 1 - mask), "j": (fused, mask)}
        if config.full_weight > 0 or not config.demixes:
            to_decode["full"] = (decoder.fuse(content, style), everything)
        if config.contrasts:
            to_decode["swap"] = (decoder.fuse(*swap_styles(content, style, batch["partner"])), everything)
        if config.aligns:
            own = style_statistics(style, batch.get("coverage"))
            other = style_statistics(encoded["reference"][1], batch.get("style_reference_coverage"))
            to_decode["aligned"] = (decoder.fuse(content, shift_style(style, own, other)), everything)
        return _in_one_pass(decoder, to_decode)

    @torch.no_grad()
    def _teacher_factors(
        self, latent: Float[Tensor, "B C X Y Z"], decoded: Latents, *, distils: bool
    ) -> dict[str, Factors]:
        config = self.config
        to_encode = {}
        if config.contrasts:
            to_encode |= {"clean": (latent,), "swap": (decoded["swap"],)}
        if distils and config.teacher_input == "clean":
            to_encode["clean"] = (latent,)
        if distils and config.teacher_input == "recovered":
            to_encode |= {side: (decoded[side],) for side in ("i", "j")}
        return _in_one_pass(self.teacher.encode, to_encode)

    def _reconstruction_losses(
        self, latent: Float[Tensor, "B C X Y Z"], decoded: Latents, partner: Int[Tensor, "B"]
    ) -> dict[str, Float[Tensor, ""]]:
        if self.config.demixes:
            recovered_i, recovered_j = decoded["i"], decoded["j"]
        else:
            recovered_i, recovered_j = decoded["full"], decoded["full"][partner]
        reduction = self.config.reconstruction_reduction
        reconstruction = reconstruction_loss(recovered_i, recovered_j, latent, latent[partner], reduction)
        losses = {"reconstruction": reconstruction}
        if self.config.demixes and "full" in decoded:
            losses["full"] = (decoded["full"] - latent).float().square().mean()
        return losses

    def _domain_loss(self, encoded: Mapping[str, Factors], batch: Batch) -> Float[Tensor, ""]:
        domain, mask, fraction = batch["domain"], batch["mask"], batch.get("labelled_fraction")
        if self.config.demixes:
            mixture, partner = encoded["mixture"], batch["partner"]
            sides = [(mixture, 1 - mask, domain), (mixture, mask, domain[partner])]
        else:
            sides = [(encoded["clean"], torch.ones_like(mask), domain)] * 2
        entropies = []
        for (content, style), weight, labels in sides:
            logits = self.student.domain_logits(weighted_mean(content, weight), weighted_mean(style, weight))
            entropies.append([domain_cross_entropy(each, labels, fraction) for each in logits])
        (content_i, style_i), (content_j, style_j) = entropies
        return domain_loss(content_i, content_j, style_i, style_j, self.config.domain_reduction)

    def _distillation_loss(
        self,
        encoded: Mapping[str, Factors],
        targets: Mapping[str, Factors],
        mask: Float[Tensor, "B L"],
        partner: Int[Tensor, "B"],
    ) -> Float[Tensor, ""]:
        if self.config.teacher_input == "clean":
            target_i = targets["clean"]
            target_j = tuple(factor[partner] for factor in target_i)
        else:
            target_i, target_j = targets["i"], targets["j"]
        content, style = (
            factor_distillation(token_distance(i, teacher_i), token_distance(j, teacher_j), mask)
            for i, j, teacher_i, teacher_j in zip(encoded["i"], encoded["j"], target_i, target_j, strict=True)
        )
        return mixed_factor_distillation(
            content, style, self.config.content_weight, self.config.distillation_scale
        )

    def _contrast_loss(
        self,
        encoded: Mapping[str, Factors],
        targets: Mapping[str, Factors],
        domain: Int[Tensor, "B"],
        partner: Int[Tensor, "B"],
    ) -> Float[Tensor, ""]:
        queries, keys = (
            [
                torch.cat([pooled_view(volume), pooled_view(swap)])
                for volume, swap in zip(source["clean"], source["swap"], strict=True)
            ]
            for source in (encoded, targets)
        )
        gathers = self.config.scope == "global" and torch.distributed.is_initialized()
        labels = view_labels(domain, partner, torch.distributed.get_rank() if gathers else 0)
        key_labels = labels
        if gathers:
            keys = [_from_all_ranks(key) for key in keys]
            key_labels = ViewLabels(**{name: _from_all_ranks(label) for name, label in vars(labels).items()})

        compared = compared_views(labels, key_labels, self.config.scope)
        compared_style = compared_styles(labels, key_labels, compared, self.config.style_negatives)
        content, style = (
            supervised_contrast(
                view_similarity(query, key, log_scale, allowed),
                positive_pairs(query_factor, key_factor, allowed),
            )
            for query, key, log_scale, allowed, query_factor, key_factor in (
                (queries[0], keys[0], self.log_scale[0], compared, labels.content, key_labels.content),
                (queries[1], keys[1], self.log_scale[-1], compared_style, labels.style, key_labels.style),
            )
        )
        return swap_contrast(content, style)

    def _total(self, losses: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        config = self.config
        none = torch.zeros_like(losses["reconstruction"])
        total = pretraining_loss(
            losses["reconstruction"],
            losses.get("domain", none),
            losses.get("distillation", none),
            losses.get("contrast", none),
            domain_weight=config.domain_weight,
            distillation_weight=config.distillation_weight,
            contrast_weight=config.contrast_weight,
        )
        total = total + config.full_weight * losses.get("full", none)
        total = total + config.aligned_weight * losses.get("aligned", none)
        return total + config.aligned_content_weight * losses.get("aligned_content", none)


def _in_one_pass(
    network: Callable[..., Any], inputs: Mapping[str, tuple[Float[Tensor, "B ..."], ...]]
) -> dict[str, Any]:
    """Run a network once on several named batches of one size, and split its outputs by the same names."""
    if not inputs:
        return {}
    outputs = network(*(torch.cat(arguments) for arguments in zip(*inputs.values(), strict=True)))
    if isinstance(outputs, Tensor):
        return dict(zip(inputs, outputs.chunk(len(inputs)), strict=True))
    chunks = zip(*(output.chunk(len(inputs)) for output in outputs), strict=True)
    return dict(zip(inputs, chunks, strict=True))


def _from_all_ranks(rows: Shaped[Tensor, "N *S"]) -> Shaped[Tensor, "M *S"]:
    """Return the rows of all processes, in the order of their ranks."""
    gathered = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)

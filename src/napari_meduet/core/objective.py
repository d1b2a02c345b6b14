"""Pretraining, Algorithm 1 in its order (specification, section 5, Eq. 13).

One module holds all that is trained and the teacher: one optimizer, one checkpoint. One forward gives all
losses, so that DDP and torch.compile see one graph. It draws no random numbers: pairs and masks come with the
batch. Each encoder and decoder pass takes all rows that are
ready for it, and no row is computed twice. The losses themselves live in the files of their ideas; this one
calls the networks.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NotRequired, TypedDict, get_args

import torch
import torch.distributed
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from napari_meduet.core.alignment import aligned_swap_loss, content_agreement_loss
from napari_meduet.core.demixing import Pairing, draw_mask, mix, reconstruction_loss
from napari_meduet.core.disentanglement import (
    PairReduction,
    domain_cross_entropy,
    domain_loss,
)
from napari_meduet.core.factors import style_statistics, weighted_mean
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.mftd import factor_distillation, mixed_factor_distillation, token_distance
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

Ablation = Literal["domain", "mftd", "siqc", "disentangle", "demix"]
TeacherInput = Literal["clean", "recovered"]

# Content and style tokens, as MeDUET.encode returns them.
Factors = tuple[Float[Tensor, "B L Dc"], Float[Tensor, "B L Ds"]]


class Batch(TypedDict):
    """What one step sees; latents are standardised per channel."""

    latent: Float[Tensor, "B C X Y Z"]
    domain: Int[Tensor, "B"]  # -1: unlabelled
    partner: Int[Tensor, "B"]  # the row of the volume that is mixed into this one; its partner is this row
    mask: Float[Tensor, "B L"]  # 1 where the token comes from the partner
    # Of the step's whole batch, of which these rows may be a part (disentanglement.py).
    labelled_share: NotRequired[Float[Tensor, ""]]
    # Truth for the swap (alignment.py). A volume without truth may stand in for its own target, with
    # another crop of the same scan as reference: a swap with one's own style changes nothing.
    aligned_target: NotRequired[Float[Tensor, "B C X Y Z"]]  # the anatomy of `latent` in another style
    style_reference: NotRequired[Float[Tensor, "B C X Y Z"]]  # other anatomy in that style
    # Share of body in each token; without it, air counts in the style statistics of the aligned swap.
    coverage: NotRequired[Float[Tensor, "B L"]]
    style_reference_coverage: NotRequired[Float[Tensor, "B L"]]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is optimised; the defaults are the preset `corrected`, the tags say where it leaves the paper."""

    total_steps: int = 200_000  # specification, section 6; drives the schedules of distillation and teacher
    mixing_ratio: float = 0.5  # specification, section 5
    pairing: Pairing = "random"
    domain_weight: float = 0.2  # Eq. 13
    domain_reduction: PairReduction = "mean"  # C-09
    distillation_weight: float = 0.5  # Eq. 13
    distillation_start: float = 0.2  # share of the steps; by then the teacher has settled (Sec. 4.1)
    distillation_scale: float = 2.0  # C-16
    content_weight: float = 0.5  # lambda_c in Eq. 6, Table 9
    teacher_input: TeacherInput = "clean"  # C-14
    contrast_weight: float = 0.3  # Eq. 13
    scope: Scope = "batch"
    style_negatives: StyleNegatives = "exclude_same_domain"  # C-20
    full_weight: float = 0.25  # C-04: un-mixed reconstruction
    aligned_weight: float = 0.0  # ours: a swap whose result is known
    aligned_content_weight: float = 0.0  # ours: one anatomy, one content
    without: tuple[Ablation, ...] = ()  # Tables 5 and 6

    def __post_init__(self) -> None:
        for name, choices in (
            ("pairing", Pairing),
            ("domain_reduction", PairReduction),
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
            raise ValueError(f"mixing_ratio lies between 0 and 1; got {self.mixing_ratio}.")
        if not 0 <= self.distillation_start <= 1:
            raise ValueError(f"distillation_start is a share of the steps; got {self.distillation_start}.")

    @classmethod
    def corrected(cls, **changes: Any) -> "ObjectiveConfig":
        """MeDUET v1 with the corrections of docs/departures.md."""
        return replace(cls(), **changes)

    @classmethod
    def paper(cls, **changes: Any) -> "ObjectiveConfig":
        """The text of MeDUET v1 as it stands."""
        text = cls(
            pairing="flip",
            domain_reduction="sum",
            distillation_scale=1.0,
            teacher_input="recovered",
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
        """Whether hidden factors are distilled at all; without a mixture none is hidden."""
        return self._keeps("mftd") and self.demixes

    @property
    def aligns(self) -> bool:
        return self.aligned_weight > 0 or self.aligned_content_weight > 0

    def has_distillation_started(self, step: int) -> bool:
        return self.distils and step >= self.distillation_start * self.total_steps

    def draw(self, network: MeDUETConfig, generator: Generator) -> dict[str, Tensor]:
        """The random numbers of one row of a batch: its mask."""
        return {"mask": draw_mask(network.num_tokens, self.mixing_ratio, generator)}

    def build(self, network: MeDUETConfig) -> "Objective":
        """Student and teacher of this network under this objective."""
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
    """Student, teacher and all losses of a pretraining step."""

    def __init__(self, network: MeDUETConfig, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config
        self.student = MeDUET(network)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        # DDP waits for the gradient of every parameter that wants one, so an ablated term must own none.
        if not config.classifies_domains:
            self.student.content_domain.requires_grad_(False)
            self.student.style_domain.requires_grad_(False)
        if config.contrasts:
            self.log_scale = nn.Parameter(torch.tensor([INITIAL_LOG_SCALE]))  # a row: FSDP cuts no scalars

    def forward(self, batch: Batch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Each loss of the batch, unweighted, and their weighted sum as `total`.

        Beside them, for watching, the mean norm of the volumes' tokens: `norm.content` and `norm.style`.
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
                    "aligned_weight asks for truth: give each batch aligned_target and style_reference."
                )
            if config.aligned_content_weight > 0:
                to_encode["target"] = (batch["aligned_target"], nothing)
            to_encode["reference"] = (batch["style_reference"], nothing)
        encoded = _in_one_pass(self.student.encode, to_encode)

        # Decode both volumes of each mixture, each volume from all its tokens, and each swap.
        decoded = self._decode(batch, encoded)

        # Encode again what was decoded; the teacher encodes its targets.
        recovered = {side: (decoded[side],) for side in ("i", "j")} if distils else {}
        swaps = {"swap": (decoded["swap"],)} if config.contrasts else {}
        encoded |= _in_one_pass(self.student.encode, recovered | swaps)
        taught = self._teach(latent, decoded, distils=distils)

        # Compare.
        losses = self._reconstruction_losses(latent, decoded, partner)
        if config.classifies_domains:
            losses["domain"] = self._domain_loss(encoded, batch)
        if config.distils:
            losses["distillation"] = (
                self._distillation_loss(encoded, taught, mask, partner) if distils else latent.new_zeros(())
            )
        if config.contrasts:
            losses["contrast"] = self._contrast_loss(encoded, taught, batch["domain"], partner)
        if config.aligns:
            target = batch.get("aligned_target")
            assert target is not None, "seen to above"
            losses["aligned"] = aligned_swap_loss(decoded["aligned"], target)
        if config.aligned_content_weight > 0:
            losses["aligned_content"] = content_agreement_loss(encoded["clean"][0], encoded["target"][0])
        norms = zip(("norm.content", "norm.style"), encoded["clean"], strict=True)
        watched = {name: tokens.detach().float().norm(dim=-1).mean() for name, tokens in norms}
        return losses | {"total": self._total(losses)} | watched

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """What follows an optimizer step: the teacher moves, the contrast's scale stays below its bound.

        Left above the bound, where its gradient is 0, the scale would never come back (C-23).
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
    def _teach(
        self, latent: Float[Tensor, "B C X Y Z"], decoded: Mapping[str, Tensor], *, distils: bool
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
        self, latent: Float[Tensor, "B C X Y Z"], decoded: Mapping[str, Tensor], partner: Int[Tensor, "B"]
    ) -> dict[str, Float[Tensor, ""]]:
        if not self.config.demixes:
            full = decoded["full"]
            return {"reconstruction": reconstruction_loss(full, full[partner], latent, latent[partner])}
        losses = {"reconstruction": reconstruction_loss(decoded["i"], decoded["j"], latent, latent[partner])}
        if "full" in decoded:
            losses["full"] = (decoded["full"] - latent).float().square().mean()
        return losses

    def _domain_loss(self, encoded: Mapping[str, Factors], batch: Batch) -> Float[Tensor, ""]:
        domain, mask, share = batch["domain"], batch["mask"], batch.get("labelled_share")
        if self.config.demixes:
            mixture, partner = encoded["mixture"], batch["partner"]
            sides = [(mixture, 1 - mask, domain), (mixture, mask, domain[partner])]
        else:
            sides = [(encoded["clean"], torch.ones_like(mask), domain)] * 2
        entropies = []
        for (content, style), weight, labels in sides:
            logits = self.student.domain_logits(weighted_mean(content, weight), weighted_mean(style, weight))
            entropies.append([domain_cross_entropy(each, labels, share) for each in logits])
        (content_i, style_i), (content_j, style_j) = entropies
        return domain_loss(content_i, content_j, style_i, style_j, self.config.domain_reduction)

    def _distillation_loss(
        self,
        encoded: Mapping[str, Factors],
        taught: Mapping[str, Factors],
        mask: Float[Tensor, "B L"],
        partner: Int[Tensor, "B"],
    ) -> Float[Tensor, ""]:
        if self.config.teacher_input == "clean":
            target_i = taught["clean"]
            target_j = tuple(factor[partner] for factor in target_i)
        else:
            target_i, target_j = taught["i"], taught["j"]
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
        taught: Mapping[str, Factors],
        domain: Int[Tensor, "B"],
        partner: Int[Tensor, "B"],
    ) -> Float[Tensor, ""]:
        queries, keys = (
            [
                torch.cat([pooled_view(volume), pooled_view(swap)])
                for volume, swap in zip(source["clean"], source["swap"], strict=True)
            ]
            for source in (encoded, taught)
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
                view_similarity(query, key, self.log_scale.squeeze(0), allowed),
                positive_pairs(query_factor, key_factor, allowed),
            )
            for query, key, allowed, query_factor, key_factor in (
                (queries[0], keys[0], compared, labels.content, key_labels.content),
                (queries[1], keys[1], compared_style, labels.style, key_labels.style),
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


def _in_one_pass(network: Callable[..., Any], inputs: Mapping[str, tuple[Tensor, ...]]) -> dict[str, Any]:
    """Run a network once on several named batches of one size, and part its outputs by the same names."""
    if not inputs:
        return {}
    outputs = network(*(torch.cat(arguments) for arguments in zip(*inputs.values(), strict=True)))
    if isinstance(outputs, Tensor):
        return dict(zip(inputs, outputs.chunk(len(inputs)), strict=True))
    chunks = zip(*(output.chunk(len(inputs)) for output in outputs), strict=True)
    return dict(zip(inputs, chunks, strict=True))


def _from_all_ranks(rows: Tensor) -> Tensor:
    gathered = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)

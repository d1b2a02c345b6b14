"""Learning a task from few labels, in the scans' own style and in others (specification, section 10, Eqs. 28-30).

The losses are at the top, functions of tensors; what is trained, segmenter or classifier, is below them. All
random numbers of a step come with its batch, as in `core/objective.py`.

Scans may be labelled in part: a class that nobody looked for in a scan lies in that scan's background, so
there the background's probability is that of all such classes together (the marginal loss of Shi et al.
2021). Voxels that nobody looked at at all count for nothing.
"""

import copy
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Generator as RandomNumbers
from torch import Tensor, nn

from napari_meduet.core.analysis.classifier import ScanClassifier
from napari_meduet.core.analysis.style_augmentation import StyleAugmentation, StyleBank, augmented_latent
from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.core.meduet import MeDUET
from napari_meduet.core.sliding_windows import Position, cut_window
from napari_meduet.core.teacher import ramped_decay, update_teacher

IGNORED = 255  # a voxel's target where nobody looked


def augmented_task_loss(task_loss: Float[Tensor, ""], weight: float) -> Float[Tensor, ""]:
    """What the task loses in another style, weighed by lambda_aug. Eq. (28)."""
    return weight * task_loss


def style_consistency(
    augmented: Float[Tensor, "B K *S"], original: Float[Tensor, "B K *S"]
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of the augmented prediction from the original's. Eq. (29).

    Classes are on the second axis; the mean is over rows and places. The original is a target: no gradient
    flows into it.
    """
    log_p, log_q = augmented.log_softmax(dim=1), original.detach().log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


def finetuning_loss(
    task: Float[Tensor, ""], augmented: Float[Tensor, ""], consistency: Float[Tensor, ""], weight: float
) -> Float[Tensor, ""]:
    """The task, the task in another style, and the agreement of both, weighed by lambda_cons. Eq. (30)."""
    return task + augmented + weight * consistency


def known_log_probabilities(
    scores: Float[Tensor, "B K *S"], annotated: Bool[Tensor, "B K"]
) -> Float[Tensor, "B K *S"]:
    """Log-probabilities where the background stands for every class that is not annotated as well.

    What is returned for a class that is not annotated means nothing.
    """
    log_p = scores.log_softmax(dim=1)
    if bool(annotated.all()):
        return log_p
    in_background = ~annotated
    in_background[:, 0] = True
    shape = (*in_background.shape, *(1 for _ in scores.shape[2:]))
    hidden = log_p.masked_fill(~in_background.view(shape), -torch.inf)
    return torch.cat([hidden.logsumexp(dim=1, keepdim=True), log_p[:, 1:]], dim=1)


def segmentation_loss(
    scores: Float[Tensor, "B K X Y Z"], target: UInt8[Tensor, "B X Y Z"], annotated: Bool[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Cross-entropy plus one minus the soft Dice of the classes that the batch shows.

    Args:
        target: class of each voxel, or `IGNORED`.
        annotated: the classes that somebody looked for in each row; the background always is.
    """
    log_p = known_log_probabilities(scores, annotated)
    is_known = target != IGNORED
    classes = target.long().masked_fill(~is_known, 0)
    picked = log_p.gather(1, classes.unsqueeze(1)).squeeze(1)
    cross_entropy = -(picked * is_known).sum() / is_known.sum().clamp(min=1)
    overlaps = [
        soft_dice(log_p[:, k].exp() * is_known * annotated[:, k, None, None, None], target == k)
        for k in range(1, scores.shape[1])
        if bool((target == k).any())
    ]
    return cross_entropy + (1 - torch.stack(overlaps).mean() if overlaps else 0.0)


def soft_dice(probability: Float[Tensor, "*S"], is_class: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Dice of a probability and a mask that is not empty, over all rows together."""
    return 2 * (probability * is_class).sum() / (probability.sum() + is_class.sum())


class FinetuningBatch(TypedDict):
    """What both tasks learn from; `augments`, `style_draw` and `strength` are drawn."""

    latent: Float[Tensor, "B C X Y Z"]
    modality: Int[Tensor, " B"]  # as the style bank numbers them
    augments: Bool[Tensor, " B"]
    style_draw: Float[Tensor, " B"]
    strength: Float[Tensor, " B"]


class SegmentationBatch(FinetuningBatch):
    """Crops, and the classes of a block of each: context is cheap, scores of voxels are not.

    `block` is the first corner of the block in the crop, in latent voxels.
    """

    target: UInt8[Tensor, "B X Y Z"]
    block: Int[Tensor, "B 3"]
    annotated: Bool[Tensor, "B K"]


class ClassificationBatch(FinetuningBatch):
    """Crops, their tokens' shares of body, and the class of the scan of each."""

    coverage: Float[Tensor, "B L"]
    label: Int[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """How a task is learnt.

    Attributes:
        augmentation: None: in the scans' own style alone.
        ema_decay: of the average of the weights, which predicts.
        encoder_rate: share of the learning rate at which the encoder is trained: what it knows from its
            pretraining should not be lost while the rest still knows nothing.
    """

    total_steps: int = 10_000
    augmentation: StyleAugmentation | None = None
    ema_decay: float = 0.999
    encoder_rate: float = 1.0
    pairing: None = None  # each crop is alone

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1; got {self.total_steps}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay lies from 0 to less than 1; got {self.ema_decay}.")
        if not 0 <= self.encoder_rate <= 1:
            raise ValueError(f"encoder_rate is a share, 0 to 1; got {self.encoder_rate}.")

    def draw(self, network: object, generator: RandomNumbers) -> dict[str, Tensor]:
        """Whether a row is shown in another style, in which, and how far, for one row."""
        chance, style, place = torch.rand(3, generator=generator)
        augmentation = self.augmentation or StyleAugmentation(probability=0.0)
        low, high = augmentation.strengths
        return {
            "augments": chance < augmentation.probability,
            "style_draw": style,
            "strength": low + (high - low) * place,
        }


class FinetuningObjective(nn.Module):
    """A network learning a task, with its average; the MeDUET that lends its styles does not move.

    Attributes:
        student: what the optimizer moves.
        teacher: its slow average, which predicts.
        meduet, bank: what shows crops in other styles; None where nothing is augmented.
    """

    def __init__(
        self,
        config: FinetuningConfig,
        network: nn.Module,
        meduet: MeDUET | None = None,
        bank: StyleBank | None = None,
    ) -> None:
        super().__init__()
        if config.augmentation is not None and (meduet is None or bank is None):
            raise ValueError("Style augmentation needs a MeDUET and a bank of styles.")
        self.config = config
        self.student = network
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        self.meduet = None if meduet is None else meduet.requires_grad_(False)
        self.bank = bank

    def scores(self, network: nn.Module, latent: Tensor, batch: FinetuningBatch) -> Tensor:
        """What a network says of crops of a batch, in whatever style they are shown."""
        raise NotImplementedError

    def task_loss(self, scores: Tensor, batch: FinetuningBatch) -> Float[Tensor, ""]:
        """What it gets wrong."""
        raise NotImplementedError

    def forward(self, batch: FinetuningBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch and its parts."""
        scores = self.scores(self.student, batch["latent"], batch)
        task = self.task_loss(scores, batch)
        if self.config.augmentation is None:
            return {"total": task, "task": task.detach()}
        augmented, consistency = task.new_zeros(()), task.new_zeros(())
        if bool(batch["augments"].any()):
            rows = batch["augments"].nonzero().squeeze(1)
            few = rows_of(batch, rows)
            shown = self.scores(self.student, self._in_other_style(few), few)
            share = len(rows) / len(scores)  # a row that is not shown again adds nothing
            augmented = share * self.task_loss(shown, few)
            consistency = share * style_consistency(shown, scores[rows])
        weights = self.config.augmentation
        total = finetuning_loss(
            task, augmented_task_loss(augmented, weights.weight), consistency, weights.consistency
        )
        parts = {"task": task, "augmented": augmented, "consistency": consistency}
        return {"total": total} | {name: loss.detach() for name, loss in parts.items()}

    def rate_of(self, name: str) -> float:
        """At which share of the learning rate a parameter is trained."""
        return self.config.encoder_rate if name.startswith("student.encoder.") else 1.0

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """After the optimizer: the average follows."""
        update_teacher(self.teacher, self.student, ramped_decay(step, self.config.ema_decay))

    def _in_other_style(self, batch: FinetuningBatch) -> Tensor:
        assert self.meduet is not None
        assert self.bank is not None
        styles = self.bank.drawn(batch["modality"], batch["style_draw"])
        return augmented_latent(self.meduet, batch["latent"], styles, batch["strength"])


class SegmentationObjective(FinetuningObjective):
    """A segmenter in training."""

    student: LatentUNETR
    teacher: LatentUNETR

    def scores(self, network: nn.Module, latent: Tensor, batch: SegmentationBatch) -> Tensor:  # type: ignore[override]
        """Scores of each voxel of the blocks."""
        segmenter = cast(LatentUNETR, network)
        sides = [side // segmenter.head.stride for side in batch["target"].shape[1:]]
        return block_scores(
            segmenter, segmenter.features(latent), batch["block"], cast(Position, tuple(sides))
        )

    def task_loss(self, scores: Tensor, batch: SegmentationBatch) -> Float[Tensor, ""]:  # type: ignore[override]
        """`segmentation_loss`."""
        return segmentation_loss(scores, batch["target"], batch["annotated"])


def block_scores(
    network: LatentUNETR, features: Float[Tensor, "B F x y z"], corners: Int[Tensor, "B 3"], size: Position
) -> Float[Tensor, "B K X Y Z"]:
    """Scores of one block of each row, decoded with the head's reach around it."""
    halo, stride = network.head.halo, network.head.stride
    padded = F.pad(features, [halo] * 6)
    reach = cast(Position, tuple(side + 2 * halo for side in size))
    blocks = [
        cut_window(row, cast(Position, tuple(corner)), reach)
        for row, corner in zip(padded, corners.tolist(), strict=True)
    ]
    inner = slice(halo * stride, -halo * stride or None)
    return network.head(torch.stack(blocks))[..., inner, inner, inner]


class ClassificationObjective(FinetuningObjective):
    """A classifier in training."""

    student: ScanClassifier
    teacher: ScanClassifier

    def scores(self, network: nn.Module, latent: Tensor, batch: ClassificationBatch) -> Tensor:  # type: ignore[override]
        """Scores of each crop."""
        return network(latent, batch["coverage"])

    def task_loss(self, scores: Tensor, batch: ClassificationBatch) -> Float[Tensor, ""]:  # type: ignore[override]
        """Cross-entropy of the scan's class."""
        return F.cross_entropy(scores, batch["label"])


def rows_of(batch: FinetuningBatch, rows: Int[Tensor, " N"]) -> FinetuningBatch:
    """Some rows of a batch; what has no rows stays."""
    return {name: value[rows] if value.ndim else value for name, value in batch.items()}  # type: ignore[return-value, union-attr]

"""Fine-tuning with few labels, with style augmentation (specification, section 10, Eqs. 28-30).

The losses come first, as functions of tensors; the objectives of segmenter and classifier follow. All random
numbers of a step come with its batch, as in `core/objective.py`.

Scans may be partially labelled. A class that was not annotated in a scan is part of that scan's background,
so there the background's probability is the sum over all such classes (marginal loss, Shi et al. 2021).
Voxels without any annotation do not count.
"""

import copy
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Generator as RandomNumbers
from torch import Tensor, nn

from napari_meduet.core.analysis.classifier import ScanClassifier
from napari_meduet.core.analysis.style_augmentation import StyleAugmentation, StyleBank, augmented_latent
from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.core.meduet import MeDUET
from napari_meduet.core.sliding_windows import Position, cut_window
from napari_meduet.core.teacher import ramped_decay, update_teacher

IGNORED = 255  # target of a voxel without annotation


def augmented_task_loss(
    original: Float[Tensor, ""], augmented: Float[Tensor, ""], weight: float
) -> Float[Tensor, ""]:
    """Task loss of both styles, L_task(f(z), y) + lambda_aug L_task(f(z_aug), y). Eq. (28)."""
    return original + weight * augmented


def style_consistency(
    augmented: Float[Tensor, "B K *S"], original: Float[Tensor, "B K *S"]
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of the augmented prediction from the original's. Eq. (29).

    Classes are on the second axis; the mean is over rows and positions. The original is a target: no
    gradient flows into it.
    """
    log_p, log_q = augmented.log_softmax(dim=1), original.detach().log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()


def finetuning_loss(
    task: Float[Tensor, ""], consistency: Float[Tensor, ""], weight: float
) -> Float[Tensor, ""]:
    """Task loss of both styles, plus lambda_cons times the consistency of their predictions. Eq. (30)."""
    return task + weight * consistency


def known_log_probabilities(
    scores: Float[Tensor, "B K *S"], annotated: Bool[Tensor, "B K"]
) -> Float[Tensor, "B K *S"]:
    """Return log-probabilities in which the background includes every class that is not annotated.

    The values of classes that are not annotated have no meaning.
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
    """Return the cross-entropy plus one minus the mean soft Dice of the classes in the batch.

    Args:
        target: class of each voxel, or `IGNORED`.
        annotated: classes that were annotated in each row; the background always is.
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
    """Return the Dice of a probability and a non-empty mask, over all rows together."""
    return 2 * (probability * is_class).sum() / (probability.sum() + is_class.sum())


class FinetuningBatch(TypedDict):
    """A batch of either task.

    Attributes:
        modality: modality numbers of the style bank.
        augments: rows that are also used in another style (random).
        style_draw: random number that selects the style.
        strength: random strength of the style.
    """

    latent: Float[Tensor, "B C X Y Z"]
    modality: Int[Tensor, " B"]
    augments: Bool[Tensor, " B"]
    style_draw: Float[Tensor, " B"]
    strength: Float[Tensor, " B"]


class SegmentationBatch(FinetuningBatch):
    """Crops, and the target classes of one block of each crop.

    The loss uses a block only, because scores of voxels need far more memory than the context around them.

    Attributes:
        target: class of each voxel of the block, or `IGNORED`.
        block: first corner of the block in the crop, in latent voxels.
        annotated: classes that were annotated in each row.
    """

    target: UInt8[Tensor, "B X Y Z"]
    block: Int[Tensor, "B 3"]
    annotated: Bool[Tensor, "B K"]


class ClassificationBatch(FinetuningBatch):
    """Crops, the body coverage of their tokens, and the class of each crop's scan."""

    coverage: Float[Tensor, "B L"]
    label: Int[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """Options of fine-tuning.

    Attributes:
        augmentation: style augmentation; None: no augmentation.
        ema_decay: decay of the average of the weights; the average is used for prediction.
        encoder_rate: learning rate of the encoder as a fraction of the learning rate. A small value protects
            the pretrained encoder while the other layers are still untrained.
    """

    total_steps: int = 10_000
    augmentation: StyleAugmentation | None = None
    ema_decay: float = 0.999
    encoder_rate: float = 1.0
    pairing: None = None  # crops are not paired

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1; got {self.total_steps}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be from 0 to less than 1; got {self.ema_decay}.")
        if not 0 <= self.encoder_rate <= 1:
            raise ValueError(f"encoder_rate is a fraction, 0 to 1; got {self.encoder_rate}.")

    def draw(self, network: object, generator: RandomNumbers) -> dict[str, Shaped[Tensor, ""]]:
        """Return the random numbers of style augmentation for one row."""
        chance, style, strength = torch.rand(3, generator=generator)
        augmentation = self.augmentation or StyleAugmentation(probability=0.0)
        low, high = augmentation.strengths
        return {
            "augments": chance < augmentation.probability,
            "style_draw": style,
            "strength": low + (high - low) * strength,
        }


class FinetuningObjective(nn.Module):
    """A network in fine-tuning and its average; the MeDUET for style augmentation stays fixed.

    Attributes:
        student: the network that the optimizer trains.
        teacher: exponential moving average of the student; it is used for prediction.
        meduet, bank: used for style augmentation; None without augmentation.
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
            raise ValueError(
                "Style augmentation needs a MeDUET and a style bank. Give both, or set augmentation to None."
            )
        self.config = config
        self.student = network
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        self.meduet = None if meduet is None else meduet.requires_grad_(False)
        self.bank = bank

    def scores(
        self, network: nn.Module, latent: Float[Tensor, "B C X Y Z"], batch: FinetuningBatch
    ) -> Float[Tensor, "B K *S"]:
        """Return the class scores of the crops of a batch.

        Args:
            latent: the crops of the batch, in their own or in another style.
        """
        raise NotImplementedError

    def task_loss(self, scores: Float[Tensor, "B K *S"], batch: FinetuningBatch) -> Float[Tensor, ""]:
        """Return the loss of the scores against the targets of the batch."""
        raise NotImplementedError

    def forward(self, batch: FinetuningBatch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Return the loss of a batch as `total`, and its parts."""
        scores = self.scores(self.student, batch["latent"], batch)
        task = self.task_loss(scores, batch)
        if self.config.augmentation is None:
            return {"total": task, "task": task.detach()}
        augmented, consistency = task.new_zeros(()), task.new_zeros(())
        if bool(batch["augments"].any()):
            rows = batch["augments"].nonzero().squeeze(1)
            subset = rows_of(batch, rows)
            restyled = self.scores(self.student, self._in_other_style(subset), subset)
            fraction = len(rows) / len(scores)  # rows without augmentation count as 0
            augmented = fraction * self.task_loss(restyled, subset)
            consistency = fraction * style_consistency(restyled, scores[rows])
        weights = self.config.augmentation
        total = finetuning_loss(
            augmented_task_loss(task, augmented, weights.weight), consistency, weights.consistency
        )
        parts = {"task": task, "augmented": augmented, "consistency": consistency}
        return {"total": total} | {name: loss.detach() for name, loss in parts.items()}

    def rate_of(self, name: str) -> float:
        """Return the learning rate of a parameter as a fraction of the configured learning rate."""
        return self.config.encoder_rate if name.startswith("student.encoder.") else 1.0

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """Update the average after an optimizer step."""
        update_teacher(self.teacher, self.student, ramped_decay(step, self.config.ema_decay))

    def _in_other_style(self, batch: FinetuningBatch) -> Float[Tensor, "B C X Y Z"]:
        assert self.meduet is not None
        assert self.bank is not None
        styles = self.bank.drawn(batch["modality"], batch["style_draw"])
        return augmented_latent(self.meduet, batch["latent"], styles, batch["strength"])


class SegmentationObjective(FinetuningObjective):
    """A segmenter in training."""

    student: LatentUNETR
    teacher: LatentUNETR

    def scores(  # type: ignore[override]
        self, network: nn.Module, latent: Float[Tensor, "B C X Y Z"], batch: SegmentationBatch
    ) -> Float[Tensor, "B K x y z"]:
        """Return the class scores of each voxel of the blocks."""
        segmenter = cast(LatentUNETR, network)
        strides = segmenter.head.stride
        sides = [side // stride for side, stride in zip(batch["target"].shape[1:], strides, strict=True)]
        return block_scores(
            segmenter, segmenter.features(latent), batch["block"], cast(Position, tuple(sides))
        )

    def task_loss(  # type: ignore[override]
        self, scores: Float[Tensor, "B K X Y Z"], batch: SegmentationBatch
    ) -> Float[Tensor, ""]:
        """Return the segmentation loss of the blocks."""
        return segmentation_loss(scores, batch["target"], batch["annotated"])


def block_scores(
    network: LatentUNETR, features: Float[Tensor, "B F x y z"], corners: Int[Tensor, "B 3"], size: Position
) -> Float[Tensor, "B K X Y Z"]:
    """Return the scores of one block of each row.

    The head also reads the features within its halo around the block.
    """
    halo, stride = network.head.halo, network.head.stride
    padded = F.pad(features, [halo] * 6)
    reach = cast(Position, tuple(side + 2 * halo for side in size))
    blocks = [
        cut_window(row, cast(Position, tuple(corner)), reach)
        for row, corner in zip(padded, corners.tolist(), strict=True)
    ]
    x, y, z = (slice(halo * step, -halo * step or None) for step in stride)
    return network.head(torch.stack(blocks))[..., x, y, z]


class ClassificationObjective(FinetuningObjective):
    """A classifier in training."""

    student: ScanClassifier
    teacher: ScanClassifier

    def scores(  # type: ignore[override]
        self, network: nn.Module, latent: Float[Tensor, "B C X Y Z"], batch: ClassificationBatch
    ) -> Float[Tensor, "B K"]:
        """Return the class scores of each crop."""
        return network(latent, batch["coverage"])

    def task_loss(  # type: ignore[override]
        self, scores: Float[Tensor, "B K"], batch: ClassificationBatch
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy of the class of each crop's scan."""
        return F.cross_entropy(scores, batch["label"])


def rows_of(batch: FinetuningBatch, rows: Int[Tensor, " N"]) -> FinetuningBatch:
    """Return some rows of a batch; fields without rows stay."""
    return {name: value[rows] if value.ndim else value for name, value in batch.items()}  # type: ignore[return-value, union-attr]

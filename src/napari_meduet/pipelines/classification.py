"""Which class a scan belongs to (specification, section 10).

    scan -> working grid -> latent -> windows -> scores -> their mean, by share of body -> probabilities

Windows overlap by half and hold body. A window's scores come from the encoder's tokens, pooled.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.analysis.classifier import ScanClassifier, scan_scores
from napari_meduet.core.sliding_windows import OVERLAP, Position, cut_window, window_positions
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.card import CLASSIFIER_FILE
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import scans_read
from napari_meduet.pipelines.common.encoding import (
    WINDOWS_AT_ONCE,
    PreparedScan,
    encode_latent,
    finite,
    padded_body,
    prepare_scan,
    token_place,
)
from napari_meduet.pipelines.common.interruption import interruptible
from napari_meduet.pipelines.common.memory import check_memory
from napari_meduet.pipelines.common.outputs import plain
from napari_meduet.pipelines.common.progress import null_progress, parts
from napari_meduet.pipelines.common.provenance import provenance
from napari_meduet.pipelines.factors import doubts_about, read_scan
from napari_meduet.pipelines.requests import ClassifyRequest
from napari_meduet.volumes.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class ClassificationResult:
    """What a classifier says of a scan.

    Attributes:
        probabilities: of each class, in the order of the model's card; their sum is 1.
        num_windows: that were looked at, because they hold body.
        warnings: what is doubtful, one sentence each.
    """

    probabilities: dict[str, float]
    num_windows: int
    provenance: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def found(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    def record(self) -> dict[str, Any]:
        """The answer with where it comes from, as plain data."""
        answer = {
            "class": self.found,
            "probabilities": self.probabilities,
            "num_windows": self.num_windows,
        }
        return plain(answer | self.provenance)

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write `record` as JSON: the result and its sidecar in one.

        Raises:
            InputError: a file is there already, or cannot be written.
        """
        with write_atomically(Path(path), overwrite) as temporary:
            temporary.write_text(
                json.dumps(self.record(), indent=2, allow_nan=False) + "\n", encoding="utf-8"
            )


@torch.inference_mode()
def classify(request: ClassifyRequest, on_progress: OnProgress = null_progress) -> ClassificationResult:
    """The probability of each class that the model's classifier knows, for a scan.

    Raises:
        InputError: the model has no classifier, or not for such a scan; the scan shows no body or is too
            large for the memory that is free; numbers were no longer finite.
    """
    reading, classifying = parts(on_progress, 1, 9)
    reading(0.0, "reading the model")
    model = load_model(request.model, request.device)
    card = model.card.classifier
    if model.classifier is None or card is None:
        raise InputError(
            f"The model {model.card.name} has no classifier. Choose another model, or train a classifier for "
            "it (meduet-train classifier)."
        )
    reading(0.5, "reading the scan")
    volume = read_scan(request.scan, request.choice)
    if volume.modality not in card.modalities:
        raise InputError(
            f"The classifier of {model.card.name} knows {' and '.join(card.modalities)} scans; this scan is "
            f"{volume.modality}. Choose another model, or give the right modality."
        )
    check_memory(model, volume)
    classifying(0.0, "preparing")
    prepared = prepare_scan(model, volume)
    probabilities, num_windows = classify_prepared(model, model.classifier, prepared, classifying)
    warnings = (*doubts_about("scan", volume), *prepared.doubts)
    record = provenance(
        kind="classification",
        modality=volume.modality,
        is_synthetic=False,
        sources=[("scan", volume.sha256)],
        model=model,
        parameters={"classifier_sha256": model.card.files[CLASSIFIER_FILE].sha256, "overlap": OVERLAP},
        warnings=warnings,
    )
    return ClassificationResult(
        probabilities=dict(zip(card.classes, probabilities.tolist(), strict=True)),
        num_windows=num_windows,
        provenance=record,
        warnings=warnings,
    )


@torch.inference_mode()
def classify_prepared(
    model: Model, network: ScanClassifier, prepared: PreparedScan, on_progress: OnProgress = null_progress
) -> tuple[Float[Tensor, " K"], int]:
    """The probability of each class, and of how many windows it was made.

    Args:
        network: a classifier on the model's latents, its own or another.

    Raises:
        InputError: the network reads several scans of a patient at once; the scan shows no body; numbers were
            no longer finite.
    """
    if (wanted := scans_read(network, model)) != 1:
        raise InputError(
            f"This classifier reads {wanted} scans of a patient at once, and one was given. "
            "Choose a model whose classifier reads one."
        )
    encoding, looking = parts(on_progress, 3, 2)
    latent = encode_latent(model, prepared, encoding)
    latent = model.standardised(latent)[0]
    token = tuple(network.config.patch_size * stride for stride in model.tokenizer.stride)
    coverage = F.avg_pool3d(padded_body(prepared), token)[0, 0]
    return latent_probabilities(network, latent, coverage, looking)


def latent_probabilities(
    network: ScanClassifier,
    latent: Float[Tensor, "C x y z"],
    coverage: Float[Tensor, "X Y Z"],
    on_progress: OnProgress = null_progress,
) -> tuple[Float[Tensor, " K"], int]:
    """The probability of each class for a scan whose latent is known, and of how many windows it was made.

    Args:
        latent: standardised, a whole number of tokens along each axis.
        coverage: share of body in each token.

    Raises:
        InputError: no token holds body, or numbers were not finite.
    """
    config = network.config
    size: Position = config.latent_shape[1:]
    missing = [max(0, side - length) for length, side in zip(latent.shape[1:], size, strict=True)]
    if any(missing):  # a network of larger windows than the model's
        ends = [amount for side in reversed(missing) for amount in (0, side)]
        latent = F.pad(latent[None], ends, mode="replicate")[0]
        coverage = F.pad(coverage, [amount // config.patch_size for amount in ends])
    sides = latent.shape[1], latent.shape[2], latent.shape[3]
    windows = []
    for position in window_positions(sides, size, OVERLAP):
        shares = cut_window(coverage, token_place(position, config.patch_size), config.grid).flatten()
        if shares.any():
            windows.append((position, shares))
    if not windows:
        raise InputError("This scan shows no body: nothing in it is brighter than air. Check the file.")
    device = next(network.parameters()).device
    scores: list[Tensor] = []
    done = 0.0

    def report() -> None:
        on_progress(done, "classifying")

    with interruptible(network, report):
        for first in range(0, len(windows), WINDOWS_AT_ONCE):
            done = first / len(windows)
            report()
            few = windows[first : first + WINDOWS_AT_ONCE]
            latents = torch.stack([cut_window(latent, position, size) for position, _ in few])
            covered = torch.stack([shares for _, shares in few])
            scores.append(network(latents.to(device), covered.to(device)).float().cpu())
    on_progress(1.0, "classifying")
    weight = torch.stack([shares.mean() for _, shares in windows])
    return finite(scan_scores(torch.cat(scores), weight), "classifying").softmax(dim=0), len(windows)

"""Slices and factors of the validation crops of a pretraining.

All slices are decoded by the tokenizer of the run, also those of the inputs, so that a picture shows the
errors of the network and not those of the tokenizer. The random numbers of the training are not used.
reporting/validation_panel.py draws the slices; analysis.py beside this file computes the metrics of the
factors.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from meduet_training.data.sources.validation_crops import ValidationCrops
from meduet_training.evaluation.factors.analysis import FactorSamples
from napari_meduet.core.factors import StyleStatistics, pooled_factor, style_statistics
from napari_meduet.core.meduet import MeDUET
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.core.swapping import shift_style
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import IntensityProfile
from napari_meduet.volumes.volume import Modality

SHOWN = 4  # contents, and styles, of a panel
BATCH = 16  # crops; a training of the smallest preset fits on any device with this batch


@dataclass(frozen=True, kw_only=True, eq=False)
class CropSlices:
    """The middle axial slices of K crops of one modality, and of their reconstructions and swaps.

    Slices are (X, Y) in RAS+ order, with normalised intensity.

    Attributes:
        inputs, reconstructions: (K, X, Y).
        body: (K, X, Y), whether the tokens of the crop hold body.
        swaps: (K, K, X, Y); [k, m] has the content of crop k with its style shifted to that of crop m
            (specification, section 8), as in the plugin.
    """

    modality: Modality | None
    ct_profile: IntensityProfile
    domains: tuple[str, ...]
    inputs: np.ndarray
    reconstructions: np.ndarray
    swaps: np.ndarray
    body: np.ndarray


def weights_sha256(network: nn.Module) -> str:
    """Return the digest of the weights of a network, which identifies the network of a metric."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def measure_crops(student: MeDUET, crops: ValidationCrops) -> tuple[FactorSamples, float]:
    """Compute c0 and s0 of every crop, weighted by its body (M-21), and the reconstruction error.

    The error is the mean squared difference between a latent and its decoded factors. Latents are
    standardised, so a constant reconstruction has an error of about 1.
    """
    factors: list[tuple[Tensor, Tensor]] = []
    errors = []
    with _evaluation_mode(student):
        for rows in _batches(len(crops)):
            latent, coverage = crops.latent[rows].to(_device(student)), crops.coverage[rows]
            content, style = student.encode(latent)
            difference = student.decode(content, style).float() - latent
            errors.append(difference.square().flatten(1).mean(dim=1).cpu())
            factors.append(
                (pooled_factor(content.float().cpu(), coverage), pooled_factor(style.float().cpu(), coverage))
            )
    contents, styles = (torch.cat(each).numpy() for each in zip(*factors, strict=True))
    samples = FactorSamples(
        content=contents,
        style=styles,
        domains=np.array(crops.domains, object),
        patients=np.array(crops.patients, object),
        extractor_sha256=weights_sha256(student),
        source=crops.note,
    )
    return samples, float(torch.cat(errors).mean())


@torch.inference_mode()
def slices_of_crops(
    student: MeDUET,
    tokenizer: Tokenizer,
    latent_mean: Float[Tensor, " C"],
    latent_std: Float[Tensor, " C"],
    crops: ValidationCrops,
) -> list[CropSlices]:
    """Return slices of up to four crops of each modality, from different domains where possible."""
    shown = []
    for modality in sorted(set(crops.modalities), key=str):
        rows = choose_crops(crops, modality)
        with _evaluation_mode(student):
            shown.append(_shown(student, tokenizer, latent_mean, latent_std, crops, rows, modality))
    return shown


def choose_crops(crops: ValidationCrops, modality: Modality | None) -> list[int]:
    """Choose the crops with most body in their middle layer, from domains spread over the sorted names.

    Domains with similar names are often similar sites, so neighbours in the list would show less variety.
    """
    side = _tokens_per_axis(crops.coverage)
    middle = rearrange(crops.coverage, "n (x y z) -> n x y z", x=side, y=side)[..., side // 2]
    fullness = middle.mean(dim=(1, 2)).tolist()
    by_domain: dict[str, list[int]] = {}
    for row in sorted(range(len(crops)), key=lambda row: (-fullness[row], row)):
        if crops.modalities[row] == modality:
            by_domain.setdefault(crops.domains[row], []).append(row)
    names = sorted(by_domain)
    spread = [names[k * (len(names) - 1) // max(1, SHOWN - 1)] for k in range(SHOWN)]
    names = list(dict.fromkeys(spread)) if len(names) > SHOWN else names
    in_turns = chain.from_iterable(zip_longest(*(by_domain[name] for name in names)))
    return list(islice((row for row in in_turns if row is not None), SHOWN))


def _shown(
    student: MeDUET,
    tokenizer: Tokenizer,
    latent_mean: Tensor,
    latent_std: Tensor,
    crops: ValidationCrops,
    rows: Sequence[int],
    modality: Modality | None,
) -> CropSlices:
    latent, coverage = crops.latent[list(rows)], crops.coverage[list(rows)]
    content, style = (tokens.float().cpu() for tokens in student.encode(latent.to(_device(student))))
    own = style_statistics(style, coverage)
    standardisation = LatentStandardisation.of_channels(latent_mean, latent_std)

    def slices(latents: Float[Tensor, "n C X Y Z"]) -> np.ndarray:
        return middle_slices(latents, tokenizer, standardisation)

    def decoded(styles: Float[Tensor, "n L Ds"]) -> np.ndarray:
        return slices(student.decode(content.to(_device(student)), styles.to(_device(student))).float())

    each_style = [
        StyleStatistics(mean=own.mean[[k]].expand_as(own.mean), std=own.std[[k]].expand_as(own.std))
        for k in range(len(rows))
    ]
    inputs = slices(latent)
    swaps = np.stack([decoded(shift_style(style, own, other)) for other in each_style], axis=1)
    return CropSlices(
        modality=modality,
        ct_profile=crops.ct_profile,
        domains=tuple(crops.domains[row] for row in rows),
        inputs=inputs,
        reconstructions=swaps[range(len(rows)), range(len(rows))],  # a shift to the own style changes nothing
        swaps=swaps,
        body=_body(coverage, inputs.shape[1:]),
    )


def middle_slices(
    latents: Float[Tensor, "n C X Y Z"],
    tokenizer: Tokenizer,
    standardisation: LatentStandardisation,
) -> np.ndarray:
    """Decode the middle axial slice (X, Y) of each standardised latent, in normalised intensity."""
    middle = latents.shape[-1] // 2
    first = max(0, middle - tokenizer.halo)  # layers outside the halo do not change the middle
    slab = slice(first, middle + tokenizer.halo + 1)
    device = next(tokenizer.parameters()).device
    slices = []
    for each in latents:
        volume = tokenizer.decode(standardisation.restored(each[None])[..., slab].to(device))
        slices.append(volume[0, 0, :, :, (middle - first) * tokenizer.stride[2]].float().cpu().numpy())
    return np.stack(slices)


def _body(coverage: Float[Tensor, "K L"], shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels of the middle slice whose tokens have at least half body."""
    side = _tokens_per_axis(coverage)
    layer = rearrange(coverage, "k (x y z) -> k x y z", x=side, y=side)[..., side // 2].numpy() >= 0.5
    return layer.repeat(shape[0] // side, axis=1).repeat(shape[1] // side, axis=2)


def _tokens_per_axis(coverage: Float[Tensor, "N L"]) -> int:
    return round(coverage.shape[1] ** (1 / 3))


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Switch a network to evaluation mode, and restore its mode afterwards."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _batches(count: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, count, BATCH))


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device

"""A model of random weights and small scans: enough to test every law that does not depend on training."""

from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import torch

from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.models.card import (
    MaskClass,
    ModelCard,
    ProfileCard,
    TokenizerCard,
    TrainingSource,
    read_card,
)
from napari_meduet.models.saving import save_classifier, save_generator, save_model, save_segmenter
from napari_meduet.models.segmenters import build_segmenter
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer
from napari_meduet.volumes.intensity import CT_FULL

MEDUET = {
    "grid": [2, 2, 2],  # windows of 32 voxels: a small scan has several
    "width": 24,
    "depth": 1,
    "heads": 2,
    "content_width": 24,
    "style_width": 12,
    "decoder_width": 24,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "num_domains": 2,
}
TOKENIZER = {"channels": 4, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}


def save_tiny_model(
    folder: Path, seed: int = 0, name: str = "tiny", is_grey: bool = False, depth: int = 1
) -> Path:
    """A model folder with random weights, the same for the same seed.

    Args:
        is_grey: whatever its tokens, it decodes one grey; the whole scan is then left to texture.
    """
    torch.manual_seed(seed)
    tokenizer = WaveletTokenizer(WaveletConfig(**TOKENIZER))
    sizes = {**MEDUET, "depth": depth}
    meduet = MeDUET(MeDUETConfig(**{**sizes, "grid": tuple(MEDUET["grid"])}))
    if is_grey:
        for weight in tokenizer.parameters():
            weight.data.zero_()
    card = ModelCard(
        name=name,
        description="Random weights, for tests.",
        modalities=("CT", "MR"),
        tokenizer=TokenizerCard(
            name="wavelet", config=TOKENIZER, latent_mean=(0.1,) * 4, latent_std=(0.5,) * 4
        ),
        meduet=sizes,
        profiles={"CT": ProfileCard(name=CT_FULL.name, knots=CT_FULL.knots), "MR": ProfileCard(name="mr")},
        working_spacing_mm=1.5,
        domains=("site a",),
        training_data=(TrainingSource(domain="site a", modality="CT", num_scans=1, licence="CC0"),),
        seeds={"weights": seed},
    )
    save_model(folder, card, tokenizer.state_dict(), meduet.state_dict())
    return folder


def save_tiny_generator(folder: Path, prediction: Literal["data", "noise"] = "data") -> Path:
    """A generator of random weights, none of them 0, for the tiny model in a folder."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        grid=(2, 2, 2),
        width=12,
        depth=2,
        heads=2,
        content_width=24,
        style_width=12,
        prediction=prediction,
    )
    generator = Generator(config)
    for parameter in generator.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    save_generator(folder, config, generator.state_dict(), {"seed": 0})
    return folder


CLASSES = (
    MaskClass(label=0, name="background"),
    MaskClass(label=3, name="organ"),
    MaskClass(label=7, name="bone"),
)


def save_tiny_segmenter(folder: Path, seed: int = 0) -> Path:
    """A segmenter of random weights, for background, organ and bone, for the tiny model in a folder."""
    torch.manual_seed(seed)
    config = UNETRConfig(grid=(2, 2, 2), width=24, depth=4, heads=2, features=8, num_classes=len(CLASSES))
    network = build_segmenter(config, read_card(folder).tokenizer)
    save_segmenter(folder, config, network.state_dict(), CLASSES, ("CT", "MR"), {"seed": seed})
    return folder


def save_tiny_classifier(
    folder: Path, seed: int = 0, classes: tuple[str, ...] = ("benign", "malignant")
) -> Path:
    """A classifier of random weights for the tiny model in a folder."""
    torch.manual_seed(seed)
    config = ClassifierConfig(grid=(2, 2, 2), width=24, depth=1, heads=2, num_classes=len(classes))
    save_classifier(
        folder, config, ScanClassifier(config).state_dict(), classes, ("CT", "MR"), {"seed": seed}
    )
    return folder


def phantom(modality: str, seed: int, shape: tuple[int, int, int] = (44, 40, 26)) -> np.ndarray:
    """A body with an organ and a bone in it, in HU or as MR signal; `seed` draws the noise."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    body = x**2 + y**2 + 0.3 * z**2 < 0.75
    organ = (x - 0.3) ** 2 + y**2 + z**2 < 0.1
    bone = (x + 0.4) ** 2 + (y + 0.3) ** 2 < 0.03
    if modality == "CT":
        values = np.where(bone, 1700.0, np.where(organ, 90.0, np.where(body, 40.0, -1000.0)))
        return np.rint(values + rng.normal(0, 8 + 4 * seed, shape) * body).astype(np.int16)
    values = np.where(bone, 60.0, np.where(organ, 700.0, np.where(body, 400.0, 0.0)))
    return np.rint(np.abs(values + rng.normal(0, 10 + 5 * seed, shape))).astype(np.uint16)


def save_phantom(path: Path, modality: str = "CT", seed: int = 0, **options: tuple[int, int, int]) -> Path:
    """A phantom as NIfTI on an oblique, anisotropic grid in LPS voxel order."""
    angle = 0.1
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.2, -1.2, 2.5])
    affine[:3, 3] = 30, 20, -40
    image = nib.Nifti1Image(phantom(modality, seed, **options), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


def save_tissue(path: Path, noise_hu: float, seed: int) -> Path:
    """A block of soft tissue of 40 HU with white noise, and nothing else."""
    values = np.random.default_rng(seed).normal(40, noise_hu, (72, 64, 14))
    nib.save(nib.Nifti1Image(np.rint(values).astype(np.int16), np.diag([1.0, 1.0, 2.5, 1.0])), path)
    return path

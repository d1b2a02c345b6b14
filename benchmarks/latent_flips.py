"""Measure how well a flipped or rotated latent decodes to the flipped or rotated scan.

    python benchmarks/latent_flips.py

Crops of the sample scans are flipped and rotated as in training, before encoding or as latents, with the
embedded tokenizer. A latent is transformed with the linear map of its channels, or its voxels alone are
moved. PSNR is measured over the range [0, 1] of the normalised intensity, for all crops together. Goal: a
latent with its map loses at most 3 dB compared with a scan that was transformed before encoding. Moving
voxels alone loses at least twice as much.
"""

import torch
from helpers.scans import SAMPLES, normalised
from torch import Tensor

from meduet_training.data.augmentation.flips import TURNS, fit_channel_maps, turned_latent, turned_places
from meduet_training.data.tokenizer_files import load_tokenizer
from napari_meduet.models.folders import demo_model_path
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL, fit_mr_profile

NAMES = ("ct_chest_soft_kernel", "ct_chest_sharp_kernel", "mr_brain_t1", "mr_brain_t2")
SIDE = 64
GOAL_DB = 3.0


def crops() -> Tensor:
    """Return the middle of each sample, (N, 1, X, Y, Z)."""
    crops = []
    for name in NAMES:
        volume = read_volume(SAMPLES / f"{name}.nii.gz")
        profile = CT_FULL if volume.modality == "CT" else fit_mr_profile(volume.values())
        voxels = normalised(volume, profile)
        corner = [max(0, (side - SIDE) // 8 * 4) for side in voxels.shape]
        crop = torch.from_numpy(voxels[tuple(slice(start, start + SIDE) for start in corner)].copy())
        crops.append(crop)
    depth = min(crop.shape[2] for crop in crops) // 4 * 4
    return torch.stack([crop[..., :depth] for crop in crops])[:, None]


def psnr(volume: Tensor, expected: Tensor) -> float:
    """Return the PSNR in dB for the range [0, 1]."""
    return float(-10 * torch.log10((volume - expected).square().mean()))


@torch.inference_mode()
def main() -> None:
    tokenizer, _ = load_tokenizer(demo_model_path())
    maps, volumes = fit_channel_maps(tokenizer), crops()
    latents = tokenizer.encode(volumes)[0]
    print("| transform | before encoding | latent, with its channel map | latent, voxels moved alone |")
    print("| --- | --- | --- | --- |")
    worst = 0.0
    for turns in [[name] for name in TURNS] + [["flip x", "flip z"], ["flip y", "quarter turn"]]:
        expected = turned_places(volumes, turns)
        before = psnr(tokenizer.decode(tokenizer.encode(expected)[0]), expected)
        mapped = torch.stack([turned_latent(latent, turns, maps) for latent in latents])
        with_map = psnr(tokenizer.decode(mapped), expected)
        alone = psnr(tokenizer.decode(turned_places(latents, turns)), expected)
        worst = max(worst, before - with_map)
        print(f"| {', '.join(turns)} | {before:.1f} dB | {with_map:.1f} dB | {alone:.1f} dB |")
    print(f"\nlargest loss with the map: {worst:.1f} dB (goal: at most {GOAL_DB:.0f} dB)")


if __name__ == "__main__":
    main()

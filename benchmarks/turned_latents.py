"""Claim: a latent that is flipped or turned as in training decodes to the turned scan, at a loss of at most
3 dB to a scan that was turned before it was encoded; turning places alone loses at least twice as much.

    python benchmarks/turned_latents.py

The embedded tokenizer on crops of the embedded samples; PSNR over [0, 1] in profile units, all together.
"""

from pathlib import Path

import torch
from torch import Tensor

from meduet_training.data.augmentation.flips import TURNS, fit_channel_maps, turned_latent, turned_places
from meduet_training.data.tokenizer_files import load_tokenizer
from napari_meduet.models.folders import demo_model_path
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL, fit_mr_profile
from napari_meduet.volumes.preparation import prepare

SAMPLES = ("ct_chest_soft_kernel", "ct_chest_sharp_kernel", "mr_brain_t1", "mr_brain_t2")
SIDE = 64
GOAL_DB = 3.0


def crops() -> Tensor:
    """The middle of each sample, (N, 1, X, Y, Z)."""
    found, folder = [], Path(__file__).parents[1] / "src" / "napari_meduet" / "samples"
    for name in SAMPLES:
        volume = read_volume(folder / f"{name}.nii.gz")
        profile = CT_FULL if volume.modality == "CT" else fit_mr_profile(volume.values())
        units, _ = prepare(volume, profile)
        corner = [max(0, (side - SIDE) // 8 * 4) for side in units.shape]
        crop = torch.from_numpy(units[tuple(slice(start, start + SIDE) for start in corner)].copy())
        found.append(crop)
    depth = min(crop.shape[2] for crop in found) // 4 * 4
    return torch.stack([crop[..., :depth] for crop in found])[:, None]


def psnr(volume: Tensor, expected: Tensor) -> float:
    return float(-10 * torch.log10((volume - expected).square().mean()))


@torch.inference_mode()
def main() -> None:
    tokenizer, _ = load_tokenizer(demo_model_path())
    maps, volumes = fit_channel_maps(tokenizer), crops()
    latents = tokenizer.encode(volumes)[0]
    print("| turned by | before encoding | latent, with its channel map | latent, places alone |")
    print("| --- | --- | --- | --- |")
    worst = 0.0
    for turns in [[name] for name in TURNS] + [["flip x", "flip z"], ["flip y", "quarter turn"]]:
        expected = turned_places(volumes, turns)
        whole = psnr(tokenizer.decode(tokenizer.encode(expected)[0]), expected)
        mapped = torch.stack([turned_latent(latent, turns, maps) for latent in latents])
        with_map = psnr(tokenizer.decode(mapped), expected)
        alone = psnr(tokenizer.decode(turned_places(latents, turns)), expected)
        worst = max(worst, whole - with_map)
        print(f"| {', '.join(turns)} | {whole:.1f} dB | {with_map:.1f} dB | {alone:.1f} dB |")
    print(f"\nlargest loss with the map: {worst:.1f} dB (at most {GOAL_DB:.0f})")


if __name__ == "__main__":
    main()

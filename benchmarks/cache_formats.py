"""Compare formats for the latent cache: random 24^3 crops per second, and bytes on disk.

    python benchmarks/cache_formats.py [--reads 300]

The same latents (mean, log-variance and body of real CTs from MEDUET_DATA, or of the sample scans) are
written in each format. The formats then take turns. Crops of random scans are read from the page cache
(warm), from the disk (cold: the files are dropped from the page cache before each round), by one process and
by two. A format may keep the header of a file in memory, but no open file, because a hospital has more scans
than a process can have open files. Rates are also given in processor time, which other work on the machine
hardly changes. The column `checked` says whether the format detects a flipped bit.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from helpers.scans import ct_scans, normalised
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from zarr.codecs import BloscCodec, ZstdCodec

from meduet_training.data.caches.latent_chunks import open_chunks, save_chunks
from meduet_training.data.tokenizer_files import load_tokenizer
from napari_meduet.models.folders import demo_model_path
from napari_meduet.tokenizers.tiling import encode_posterior_tiled
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL

SOURCES = (
    "ct-chest-lidc-philips/lidc0314.nii.gz",
    "ct-abdomen-cptacpda-ge-revolution/c3l_00189.nii.gz",
    "ct-chest-cmbcrc-ge-vct/cmbcrc_01068.nii.gz",
)
COPIES = 8  # files for each latent, so that the disk must search for a file
SIDE = 24
ROUNDS = 5

Corner = tuple[int, int, int]


@dataclass(frozen=True)
class Candidate:
    """A format: how to write a latent (R, X, Y, Z), open its file, and read a crop.

    `open` returns what the format may keep in memory. `checked`: whether it detects a flipped bit.
    """

    write: Callable[[Path, Tensor], Any]
    open: Callable[[Path], Any]
    read: Callable[[Any, Corner], Tensor]
    checked: bool


def zarr_in_chunks(edge: int, compressor: Any = None) -> Candidate:
    def write(path: Path, latent: Tensor) -> None:
        rows, *shape = latent.shape
        whole = [-(-side // edge) * edge for side in shape]
        array = zarr.create_array(
            path,
            shape=latent.shape,
            chunks=(rows, edge, edge, edge),
            shards=(rows, *whole),
            dtype="uint16",  # zarr has no bfloat16
            compressors=compressor,
            fill_value=0,
        )
        array[:] = latent.view(torch.uint16).numpy()

    def read(array: Any, corner: Corner) -> Tensor:
        return torch.from_numpy(array[(slice(None), *_box(corner))]).view(torch.bfloat16)

    return Candidate(write, lambda path: zarr.open_array(path, mode="r"), read, checked=True)


def _write_npy(path: Path, latent: Tensor) -> None:
    np.save(f"{path}.npy", latent.view(torch.uint16).movedim(0, -1).contiguous().numpy())


def _read_npy(path: Path, corner: Corner) -> Tensor:
    mapped = np.load(f"{path}.npy", mmap_mode="r")
    crop = np.array(mapped[_box(corner)])  # (x, y, z, R): the channels of a voxel are adjacent in the file
    return torch.from_numpy(crop).view(torch.bfloat16).movedim(-1, 0)


def _read_safetensors(path: Path, corner: Corner) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_slice("latent")[(slice(None), *_box(corner))]


def _box(corner: Corner) -> tuple[slice, ...]:
    return tuple(slice(start, start + SIDE) for start in corner)


CANDIDATES = {
    "zarr 3, chunks of 24, one shard": zarr_in_chunks(24),
    "zarr 3, chunks of 12, one shard": zarr_in_chunks(12),
    "zarr 3, chunks of 8, one shard": zarr_in_chunks(8),
    "zarr 3, chunks of 12, zstd": zarr_in_chunks(12, ZstdCodec(level=3)),
    "zarr 3, chunks of 12, blosc with shuffle": zarr_in_chunks(
        12, BloscCodec(typesize=2, cname="zstd", clevel=3, shuffle="shuffle")
    ),
    "npy, memory-mapped": Candidate(_write_npy, lambda path: path, _read_npy, checked=False),
    "safetensors, memory-mapped": Candidate(
        lambda path, latent: save_file({"latent": latent}, path),
        lambda path: path,
        _read_safetensors,
        checked=False,
    ),
    "safetensors in chunks of 8 (caches/latent_chunks.py)": Candidate(
        lambda path, latent: save_chunks(path, latent, "{}"),
        open_chunks,
        lambda file, corner: file.read(corner, (SIDE,) * 3),
        checked=True,
    ),
}


def latents() -> list[Tensor]:
    """Return mean, log-variance and body of a few scans, each (R, X, Y, Z)."""
    tokenizer, _ = load_tokenizer(demo_model_path())
    encoded = []
    for path in ct_scans(SOURCES):
        voxels = torch.from_numpy(normalised(read_volume(path, modality="CT"), CT_FULL))[None, None]
        padding = [amount for side in reversed(voxels.shape[2:]) for amount in (0, max(0, 4 * SIDE - side))]
        voxels = F.pad(voxels, padding, mode="replicate")
        with torch.inference_mode():
            mean, log_variance = encode_posterior_tiled(tokenizer, voxels)
        body = F.interpolate(voxels, size=mean.shape[2:], mode="area")
        encoded.append(torch.cat([mean, log_variance, body], dim=1)[0].clone())
    return encoded


def rounding_loss(latents: list[Tensor]) -> tuple[float, float]:
    """Return the rms rounding error of bfloat16, relative to the std of the means and of the posterior."""
    means = torch.cat([latent[:4].flatten() for latent in latents])
    log_variances = torch.cat([latent[4:8].flatten() for latent in latents])
    error = (means.to(torch.bfloat16).float() - means).square().mean().sqrt()
    return float(error / means.std()), float(error / log_variances.exp().mean().sqrt())


def drop_from_page_cache(folder: Path) -> None:
    """Drop the files of a folder from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def read_crops(name: str, folder: Path, shapes: list[Corner], reads: int, seed: int) -> tuple[float, float]:
    """Return the wall and the processor seconds for random crops, of which every number is used."""
    candidate, random = CANDIDATES[name], np.random.default_rng(seed)
    files = [candidate.open(path) for path in scan_paths(folder, len(shapes))]
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(reads):
        scan = int(random.integers(len(files)))
        corner = tuple(int(random.integers(side - SIDE + 1)) for side in shapes[scan])
        candidate.read(files[scan], corner).float().sum()
    return time.perf_counter() - start, time.process_time() - processor


def scan_paths(folder: Path, count: int) -> list[Path]:
    return [folder / f"scan-{number:03d}" for number in range(count)]


def measure(name: str, folder: Path, shapes: list[Corner], reads: int, pool: Any) -> dict[str, float]:
    """Return the crops per second of one format in one round."""
    drop_from_page_cache(folder)
    cold_wall, _ = read_crops(name, folder, shapes, reads, seed=1)
    warm_wall, warm_processor = read_crops(name, folder, shapes, reads, seed=1)
    start = time.perf_counter()
    pool.starmap(read_crops, [(name, folder, shapes, reads, seed) for seed in (1, 2)])
    return {
        "cold": reads / cold_wall,
        "warm": reads / warm_wall,
        "two": 2 * reads / (time.perf_counter() - start),
        "processor_ms": 1e3 * warm_processor / reads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reads", type=int, default=300, help="Crops of one format in one round. Default: 300."
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    exact = latents()
    rounded = [latent.to(torch.bfloat16) for latent in exact]
    shapes = [tuple(latent.shape[1:]) for latent in rounded for _ in range(COPIES)]
    num_bytes = sum(latent.nbytes for latent in rounded) * COPIES
    with tempfile.TemporaryDirectory() as base, multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = {name: Path(base) / str(k) for k, name in enumerate(CANDIDATES)}
        for name, candidate in CANDIDATES.items():
            folders[name].mkdir()
            paths = iter(scan_paths(folders[name], len(shapes)))
            for latent in rounded:
                for _ in range(COPIES):
                    candidate.write(next(paths), latent)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
        for _ in range(ROUNDS):
            for name in CANDIDATES:
                rounds[name].append(measure(name, folders[name], shapes, arguments.reads, pool))
        of_latent, of_posterior = rounding_loss(exact)
        print(
            f"rounding loss of bfloat16: {100 * of_latent:.2f} % of the std of the latent, "
            f"{100 * of_posterior:.0f} % of that of the posterior"
        )
        print(f"{len(shapes)} latents, {num_bytes / 2**20:.0f} MiB; medians of {ROUNDS} rounds in turns\n")
        print("| format | cold /s | warm /s | two processes /s | processor ms | disk | checked |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, results in rounds.items():
            median = {key: statistics.median(each[key] for each in results) for key in results[0]}
            size = sum(path.stat().st_size for path in folders[name].rglob("*") if path.is_file())
            print(
                f"| {name} | {median['cold']:.0f} | {median['warm']:.0f} | {median['two']:.0f} "
                f"| {median['processor_ms']:.2f} | {100 * size / num_bytes:.0f} % "
                f"| {'yes' if CANDIDATES[name].checked else 'no'} |"
            )


if __name__ == "__main__":
    main()

"""Measure time and peak memory of our tokenizer for 96^3 voxels, compared with MONAI's AutoencoderKlMaisi.

    python benchmarks/tokenizers.py

One volume is encoded and decoded on two threads, with random weights, which do not change the cost. Each
tokenizer runs in a process of its own, so that its peak memory can be measured; they take turns, so that
other work slows all of them. The memory is the peak minus the memory after the imports: weights, activations
and results. Goals: at least 30 times faster, at most 1/10 of the peak memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import psutil
from helpers.processes import RSS_UNIT_BYTES

SIDE = 96
THREADS = 2
ROUNDS = 3
GOAL_SPEED, GOAL_MEMORY = 30, 1 / 10
LABELS = {
    "wavelet": "wavelet (ours)",
    "maisi-published": "MAISI as published, 8 splits",
    "maisi-unsplit": "MAISI without splits (tokenizers/maisi.py)",
}


def build(name: str):
    """Return a function that builds the network, in single precision."""
    if name == "wavelet":
        from napari_meduet.tokenizers.wavelet import WaveletTokenizer

        return WaveletTokenizer
    from napari_meduet.tokenizers.maisi import MaisiConfig, maisi_network

    maisi_network(MaisiConfig(num_channels=(4, 4), num_res_blocks=(1, 1), norm_num_groups=1))  # imports MONAI
    splits = 8 if name == "maisi-published" else 1
    return lambda: maisi_network(MaisiConfig(), num_splits=splits)


def measure(name: str) -> dict[str, float]:
    """Return the seconds of encode and decode, and the peak bytes minus those after the imports."""
    import torch

    torch.set_num_threads(THREADS)
    make = build(name)
    after_imports = psutil.Process().memory_info().rss

    torch.manual_seed(0)
    tokenizer = make().eval()
    volume = torch.rand(1, 1, SIDE, SIDE, SIDE)
    with torch.inference_mode():
        start = time.perf_counter()
        latent = tokenizer.encode(volume)[0]
        encoded = time.perf_counter()
        decoded = tokenizer.decode(latent)
        end = time.perf_counter()
    if latent.shape[1:] != (4, 24, 24, 24) or decoded.shape != volume.shape:
        raise RuntimeError(f"{name} returned {tuple(latent.shape)} and {tuple(decoded.shape)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES
    return {
        "encode": encoded - start,
        "decode": end - encoded,
        "bytes": peak - after_imports,
        "parameters": sum(weight.numel() for weight in tokenizer.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", choices=LABELS, help=argparse.SUPPRESS)
    name = parser.parse_args().measure
    if name:
        print(json.dumps(measure(name)))
        return

    runs: dict[str, list[dict[str, float]]] = {name: [] for name in LABELS}
    for _ in range(ROUNDS):
        for name, results in runs.items():
            output = subprocess.check_output([sys.executable, __file__, "--measure", name], text=True)
            results.append(json.loads(output.splitlines()[-1]))

    print(f"{SIDE}^3, {THREADS} threads, single precision, medians of {ROUNDS} runs each")
    print(f"{'':42}{'parameters':>12}{'encode':>10}{'decode':>10}{'peak memory':>14}")
    medians = {}
    for name, results in runs.items():
        row = {key: statistics.median(run[key] for run in results) for key in results[0]}
        medians[name] = row
        print(
            f"{LABELS[name]:42}{row['parameters'] / 1e6:>10.2f} M"
            f"{row['encode']:>8.2f} s{row['decode']:>8.2f} s{row['bytes'] / 2**20:>10.0f} MiB"
        )
    ours, peer = medians["wavelet"], medians["maisi-published"]
    speed = (peer["encode"] + peer["decode"]) / (ours["encode"] + ours["decode"])
    memory = ours["bytes"] / peer["bytes"]
    print(f"encode + decode: {speed:.0f} times faster than published MAISI (goal: {GOAL_SPEED})")
    print(
        f"peak memory: {memory:.3f} of that of published MAISI, 1/{1 / memory:.0f} "
        f"(goal: 1/{1 / GOAL_MEMORY:.0f})"
    )


if __name__ == "__main__":
    main()

"""Cost of our light tokenizer against MONAI's AutoencoderKlMaisi as published: time and peak memory for 96^3.

    python benchmarks/tokenizers.py

Encode and decode of one volume on two threads, random weights (cost does not depend on them). Each contender
runs in a process of its own, so that its peak memory is its own; they take turns, so that a busy machine
slows all. Memory counts what a process needed above what it held after its imports: weights, activations,
results. Goals of the first issue: at least 30 times faster, at most 1/10 of the peak memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import psutil

SIDE = 96
THREADS = 2
ROUNDS = 3
GOAL_SPEED, GOAL_MEMORY = 30, 1 / 10
LABELS = {
    "wavelet": "wavelet (ours)",
    "maisi-published": "MAISI, published: 8 splits",
    "maisi-unsplit": "MAISI, unsplit (tokenizers/maisi.py)",
}


def build(contender: str):
    """The contender's network, in single precision as a CPU runs it."""
    if contender == "wavelet":
        from napari_meduet.tokenizers.wavelet import WaveletTokenizer

        return WaveletTokenizer
    from napari_meduet.tokenizers.maisi import MaisiConfig, maisi_network

    maisi_network(MaisiConfig(num_channels=(4, 4), num_res_blocks=(1, 1), norm_num_groups=1))  # imports MONAI
    splits = 8 if contender == "maisi-published" else 1
    return lambda: maisi_network(MaisiConfig(), num_splits=splits)


def measure(contender: str) -> dict[str, float]:
    """Seconds of encode and decode, and peak bytes above the imports, in this process."""
    import torch

    torch.set_num_threads(THREADS)
    make = build(contender)
    held_after_imports = psutil.Process().memory_info().rss

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
        raise RuntimeError(f"{contender} returned {tuple(latent.shape)} and {tuple(decoded.shape)}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "encode": encoded - start,
        "decode": end - encoded,
        "bytes": peak - held_after_imports,
        "parameters": sum(weight.numel() for weight in tokenizer.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", choices=LABELS, help=argparse.SUPPRESS)
    contender = parser.parse_args().measure
    if contender:
        print(json.dumps(measure(contender)))
        return

    runs: dict[str, list[dict[str, float]]] = {contender: [] for contender in LABELS}
    for _ in range(ROUNDS):
        for contender, results in runs.items():
            output = subprocess.check_output([sys.executable, __file__, "--measure", contender], text=True)
            results.append(json.loads(output.splitlines()[-1]))

    print(f"{SIDE}^3, {THREADS} threads, single precision, medians of {ROUNDS} runs each")
    print(f"{'':38}{'parameters':>12}{'encode':>10}{'decode':>10}{'peak memory':>14}")
    medians = {}
    for contender, results in runs.items():
        row = {key: statistics.median(run[key] for run in results) for key in results[0]}
        medians[contender] = row
        print(
            f"{LABELS[contender]:38}{row['parameters'] / 1e6:>10.2f} M"
            f"{row['encode']:>8.2f} s{row['decode']:>8.2f} s{row['bytes'] / 2**20:>10.0f} MiB"
        )
    ours, peer = medians["wavelet"], medians["maisi-published"]
    speed = (peer["encode"] + peer["decode"]) / (ours["encode"] + ours["decode"])
    memory = ours["bytes"] / peer["bytes"]
    print(f"encode + decode: {speed:.0f} times faster than published MAISI (goal {GOAL_SPEED})")
    print(
        f"peak memory: {memory:.3f} of published MAISI's, 1/{1 / memory:.0f} (goal 1/{1 / GOAL_MEMORY:.0f})"
    )


if __name__ == "__main__":
    main()

"""Factors of the scans that a task reads: encoded once by rank zero, then opened by all processes."""

from pathlib import Path

from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from meduet_training.data.caches.factors import FactorEntry, cache_factors, open_factors
from meduet_training.data.cohort.scan import Scan
from meduet_training.runtime.fabric import run_on_rank_zero
from meduet_training.runtime.messages import print_to_stderr
from napari_meduet.models.loading import load_model


def cached_factors(
    fabric: Fabric, model: Path, scans: list[Scan], cache_dir: Path, description: str
) -> list[FactorEntry]:
    """Return the factors of scans, and compute them first if the cache directory has none.

    Args:
        model: folder of the model that encodes.
        description: which scans these are, for the progress bar.
    """
    on_cpu = load_model(model, "cpu")
    if not scans:
        return []
    entries: list[FactorEntry] = []

    def make() -> None:
        entries.extend(open_factors(on_cpu, scans, cache_dir))
        if len(entries) == len(scans):
            return
        on_device = load_model(model, fabric.device.type)
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(f"Factors of {description} scans", total=len(scans))

            def on_scan(number: int, total: int) -> None:
                bar.update(task, completed=number)

            entries[:] = cache_factors(on_device, scans, cache_dir, on_scan, print_to_stderr)
            bar.update(task, completed=len(scans))

    run_on_rank_zero(fabric, make)
    return entries if fabric.is_global_zero else open_factors(on_cpu, scans, cache_dir)

"""`make demo` without a screen: sample scans in each other's style, as volumes, pictures and a report.

    python -m napari_meduet.pipelines.demo [FOLDER]

writes into `demo-output/` or the folder given. What ran before is replaced.
"""

import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from napari_meduet.errors import InputError
from napari_meduet.models.card import Modality
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.requests import SwapRequest
from napari_meduet.pipelines.style_swap.panel import swap_panel
from napari_meduet.pipelines.style_swap.session import SwapResult, swap
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Volume


@dataclass(frozen=True)
class DemoSwap:
    """One swap of the demonstration, between two samples."""

    name: str
    title: str
    modality: Modality
    content: str
    style: str


SWAPS = (
    DemoSwap(
        "ct_soft_to_sharp",
        "Chest CT, soft kernel, in the style of a sharp kernel of another scanner",
        "CT",
        "ct_chest_soft_kernel",
        "ct_chest_sharp_kernel",
    ),
    DemoSwap(
        "ct_sharp_to_soft",
        "Chest CT, sharp kernel, in the style of a soft kernel of another scanner",
        "CT",
        "ct_chest_sharp_kernel",
        "ct_chest_soft_kernel",
    ),
    DemoSwap(
        "mr_t1_to_t2",
        "Brain MR, T1, in the style of another patient's T2",
        "MR",
        "mr_brain_t1",
        "mr_brain_t2",
    ),
)


def main(folder: Path, model: Path | None = None) -> None:
    """Run every swap and write what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    card = load_model(model).card
    console.print(f"{card.name}: {card.description}", soft_wrap=True)
    sections = [f"# Demonstration\n\nModel: {card.name}. {card.description}\n"]
    for demo in SWAPS:
        if demo.modality not in card.modalities:
            continue
        result = _run(demo, folder, model, console)
        console.print(
            f"{demo.title}: {result.report.verdict}. {' '.join(result.report.reasons)}", soft_wrap=True
        )
        sections.append(_section(demo, result))
    (folder / "report.md").write_text("\n".join(sections), encoding="utf-8")
    console.print(f"Volumes, pictures and report.md are in {folder.name}/.")


def _run(demo: DemoSwap, folder: Path, model: Path | None, console: Console) -> SwapResult:
    """One swap under a progress bar; its volume, sidecar and picture are written."""
    content, style = (_sample(name, demo.modality) for name in (demo.content, demo.style))
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(demo.name, total=1.0)
        request = SwapRequest(content, style, model=model)
        result = swap(request, lambda fraction, doing: bar.update(task, completed=fraction))
    result.save(folder / f"{demo.name}.nii.gz", overwrite=True)
    words = f"Verdict: {result.report.verdict}. {' '.join(result.report.reasons)}"
    swap_panel(content, style, result.volume, demo.title, words).save(folder / f"{demo.name}.png")
    return result


def _sample(name: str, modality: Modality) -> Volume:
    with as_file(files("napari_meduet") / "samples" / f"{name}.nii.gz") as path:
        return read_volume(path, modality=modality)


def _section(demo: DemoSwap, result: SwapResult) -> str:
    m, report = result.report.measurements, result.report
    unit = m.unit if m.unit == "HU" else "in the scan's unit"
    rows = {
        "change by the style tokens, mean in the body": f"{m.change:.3g} {unit}",
        "noise floor of that change": f"{m.noise_floor:.3g} {unit}",
        "edge displacement, 95th percentile": f"{m.edge_displacement_mm:.2f} mm",
        "lost edges": f"{m.lost_edges:.1%}",
        "gradient correlation": f"{m.gradient_correlation:.3f}",
        "tokenizer round trip": f"{m.roundtrip_psnr_db:.1f} dB",
        "body outside the intensity profile": f"{m.clipped_fraction:.1%}",
    }
    if m.style_distance is not None:
        rows["distance to the nearest known style"] = f"{m.style_distance:.1f} spreads"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"## {demo.title}\n\n![{demo.title}]({demo.name}.png)\n\n"
        f"**{report.verdict}**: {' '.join(report.reasons)}\n\n| figure | |\n|---|---|\n{table}\n\n"
        f"`{demo.name}.nii.gz` is the result on the content's grid, `{demo.name}.json` says how "
        "it was made.\n"
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output"))
    except InputError as error:
        sys.exit(str(error))

"""What a file is: scan, model, style, factors, or a result. Answers in under a second, without torch."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, read_card
from napari_meduet.pipelines.requests import ScanChoice
from napari_meduet.volumes.files import file_sha256, read_info
from napari_meduet.volumes.safe_open import open_regular, shown_name

LARGEST_HEADER_BYTES = 16 * 1024**2


def describe(path: Path | str, choice: ScanChoice | None = None) -> dict[str, Any]:
    """What a file or folder is, as plain data.

    A scan has at least `shape`, `spacing_mm`, `affine` (voxel index to RAS mm), `min_value`, `max_value` and
    `warnings`; everything has `kind` and `warnings`.
    """
    path, choice = Path(path), choice or ScanChoice()
    if (path / CARD_FILE).is_file():
        return _model(path)
    if path.suffix in {".style", ".safetensors"}:
        return _safetensors(path)
    info = read_info(path, volume_index=choice.volume_index, series=choice.series, modality=choice.modality)
    facts = asdict(info)
    provenance = facts.pop("synthetic")
    kind = provenance.get("kind", "result") if provenance else "scan"
    return json.loads(json.dumps({"kind": kind, **facts, "provenance": provenance}))


def _model(folder: Path) -> dict[str, Any]:
    card = read_card(folder)
    facts = card.model_dump(mode="json", exclude={"kind"})
    return {"kind": "model", "sha256": card.sha256, **facts, "warnings": []}


def _safetensors(path: Path) -> dict[str, Any]:
    """Shapes and metadata from the header of a style or a factors file; the tensors are not read."""
    name = shown_name(path)
    damaged = InputError(f"{name}: no file of napari-meduet, or a damaged one.")
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER_BYTES:
            raise damaged
        header = file.read(length)
    try:
        tensors = json.loads(header)
        metadata = tensors.pop("__metadata__")
        kind = metadata["format"].split()[1]
        records = json.loads(metadata["styles" if kind == "style" else "scans"])
        provenance = json.loads(metadata.get("provenance", "null"))
        shapes = {key: tensor["shape"] for key, tensor in sorted(tensors.items())}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise damaged from error
    facts = {"kind": kind, "sha256": file_sha256(path), "tensors": shapes}
    if kind == "style":
        facts |= {"styles": records}
    else:
        facts |= {"scans": records}
    return facts | {"provenance": provenance, "warnings": (provenance or {}).get("warnings", [])}

"""The sample scans that ship with the plugin; `samples/NOTICE.md` says whose they are."""

from importlib.resources import as_file, files

from napari_meduet.gui.layers import LayerData, image_layer, labels_layer
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Modality, Volume


def ct_pair() -> list[LayerData]:
    """Two chest CTs of different patients from different scanners; the lower one is hidden to begin with."""
    return [
        _hidden(image_layer(_sample("ct_chest_sharp_kernel", "CT"), "CT, sharp kernel")),
        image_layer(_sample("ct_chest_soft_kernel", "CT"), "CT, soft kernel"),
    ]


def mr_pair() -> list[LayerData]:
    """A T1 with its lesions drawn by hand above another patient's T2, which is hidden to begin with."""
    return [
        _hidden(image_layer(_sample("mr_brain_t2", "MR"), "MR, T2")),
        image_layer(_sample("mr_brain_t1", "MR"), "MR, T1"),
        labels_layer(_sample("mr_brain_t1_lesions", "MR"), "lesions in T1"),
    ]


def _hidden(layer: LayerData) -> LayerData:
    data, state, kind = layer
    return data, state | {"visible": False}, kind


def _sample(name: str, modality: Modality) -> Volume:
    with as_file(files("napari_meduet") / "samples" / f"{name}.nii.gz") as path:
        return read_volume(path, modality=modality)

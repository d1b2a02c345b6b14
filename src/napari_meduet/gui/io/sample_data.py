"""Open the sample scans that come with the plugin. `samples/NOTICE.md` lists their sources and licences."""

from importlib.resources import as_file, files

from napari_meduet.gui.layers import LayerData, image_layer, labels_layer
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Modality, Volume


def ct_pair() -> list[LayerData]:
    """Return two chest CTs of different patients and scanners. The lower layer is hidden."""
    return [
        _hidden(image_layer(_sample("ct_chest_sharp_kernel", "CT"), "CT, sharp kernel")),
        image_layer(_sample("ct_chest_soft_kernel", "CT"), "CT, soft kernel"),
    ]


def mr_pair() -> list[LayerData]:
    """Return a brain T1 with manually drawn lesions, above a hidden T2 of another patient."""
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

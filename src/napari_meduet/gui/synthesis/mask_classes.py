"""A Labels layer as the mask a model knows: labels are matched to its classes by name.

Names come from the layer's feature table (a column `name`, `label` or `class` beside `index`, as napari and
its segmentation plugins keep them). Labels without names are taken for the model's own numbers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_meduet.errors import InputError
from napari_meduet.gui.layers import to_voxels

if TYPE_CHECKING:
    from napari.layers import Labels

_NAME_COLUMNS = ("name", "label", "class")


def label_names(layer: "Labels") -> dict[int, str]:
    """What the layer calls its labels; empty where it does not."""
    return names_in(layer.features)


def names_in(table: Any) -> dict[int, str]:
    """What the feature table of a layer calls its labels."""
    column = next((column for column in _NAME_COLUMNS if column in table), None)
    if column is None:
        return {}
    numbered = table.set_index("index") if "index" in table else table
    return {int(number): str(name) for number, name in zip(numbered.index, numbered[column], strict=True)}


def mask_of(layer: "Labels", classes: Mapping[int, str]) -> np.ndarray:
    """The layer's labels as the model numbers its classes, on the layer's grid (X Y Z); 0 is background.

    Args:
        classes: the name of each class, under its number.

    Raises:
        InputError: a label that the model has no class for.
    """
    labels, names = to_voxels(np.asarray(layer.data)), label_names(layer)
    wanted = {name.casefold(): number for number, name in classes.items()}
    found = np.unique(labels)
    table = np.zeros(int(found.max()) + 1, np.int64)
    for label in found[found != 0]:
        name = names.get(int(label))
        number = int(label) if not names and int(label) in classes else wanted.get((name or "").casefold())
        if number is None:
            told = f"{label} ({name})" if name else str(label)
            raise InputError(
                f"{layer.name}: the model has no class for label {told}. It knows "
                f"{', '.join(classes.values())}: name the label so in the layer's features, or erase it."
            )
        table[label] = number
    return table[labels]

"""Convert a Labels layer to a mask for a model's ControlNet, by the names of its labels.

`common/label_features.py` reads the names. Labels of a layer without names are used as class numbers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from napari_meduet.errors import InputError
from napari_meduet.gui.common.label_features import label_names
from napari_meduet.gui.layers import labels_on

if TYPE_CHECKING:
    from napari.layers import Labels, Layer


def mask_of(layer: "Labels", scan: "Layer", classes: Mapping[int, str]) -> np.ndarray:
    """Return the model's class number of each voxel (X Y Z) of a scan's grid; 0 is background.

    Args:
        scan: Layer of a scan on the same grid; its stored order is that of the mask.
        classes: Name of each class, by number.

    Raises:
        InputError: The model has no class for a label.
    """
    labels, names = labels_on(layer, scan), label_names(layer)
    by_name = {name.casefold(): number for number, name in classes.items()}
    present = np.unique(labels)
    table = np.zeros(int(present.max()) + 1, np.int64)
    for label in present[present != 0]:
        name = names.get(int(label))
        number = int(label) if not names and int(label) in classes else by_name.get((name or "").casefold())
        if number is None:
            described = f"{label} ({name})" if name else str(label)
            raise InputError(
                f"{layer.name}: the model has no class for label {described}. Its classes are "
                f"{', '.join(classes.values())}: use one of these names in the layer's features, or erase "
                "the label."
            )
        table[label] = number
    return table[labels]

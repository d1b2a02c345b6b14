"""Names of labels in a layer's feature table: read them, and build a table from them.

A feature table has a column `name`, `label` or `class` beside `index`, as napari and its segmentation plugins
store them. napari shows the name of the label under the mouse.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Labels

_NAME_COLUMNS = ("name", "label", "class")


def label_names(layer: "Labels") -> dict[int, str]:
    """Return the names of the layer's labels; empty if its feature table has none."""
    return names_in(layer.features)


def names_in(table: Any) -> dict[int, str]:
    """Return the names of labels in a feature table."""
    column = next((column for column in _NAME_COLUMNS if column in table), None)
    if column is None:
        return {}
    numbered = table.set_index("index") if "index" in table else table
    return {int(number): str(name) for number, name in zip(numbered.index, numbered[column], strict=True)}


def name_features(names: Mapping[int, str]) -> dict[str, np.ndarray]:
    """Return the feature table of a layer whose labels have these names."""
    return {"index": np.array(list(names), int), "name": np.array(list(names.values()), object)}

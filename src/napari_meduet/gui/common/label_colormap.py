"""Label colours as a napari colormap. `pipelines/segmentation/label_colours.py` defines the colours."""

from collections.abc import Collection

from napari.utils.colormaps import DirectLabelColormap

from napari_meduet.pipelines.segmentation.label_colours import label_colour

MAX_COLOURED = 255  # larger labels share one grey
_OTHER = "#9a9a9a"


def label_colormap(hidden: Collection[int] = ()) -> DirectLabelColormap:
    """Return the colormap of a Labels layer. Background and hidden labels are transparent."""
    colours: dict[int | None, object] = {None: _OTHER, 0: "transparent"}
    for label in range(1, MAX_COLOURED + 1):
        colours[label] = (
            "transparent" if label in hidden else "#{:02x}{:02x}{:02x}".format(*label_colour(label))
        )
    return DirectLabelColormap(color_dict=colours)

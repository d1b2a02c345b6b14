"""The colours of labels as napari takes them; which they are, `pipelines/label_colours.py` says."""

from collections.abc import Collection

from napari.utils.colormaps import DirectLabelColormap

from napari_meduet.pipelines.segmentation.label_colours import label_colour

MOST_COLOURED = 255  # labels above share a grey
_OTHER = "#9a9a9a"


def label_colormap(hidden: Collection[int] = ()) -> DirectLabelColormap:
    """A layer's colours; background and hidden labels are clear."""
    colours: dict[int | None, object] = {None: _OTHER, 0: "transparent"}
    for label in range(1, MOST_COLOURED + 1):
        colours[label] = (
            "transparent" if label in hidden else "#{:02x}{:02x}{:02x}".format(*label_colour(label))
        )
    return DirectLabelColormap(color_dict=colours)

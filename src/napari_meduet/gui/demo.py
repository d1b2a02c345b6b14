"""Open napari with two sample scans and the style swap dock. `make demo` runs this file on a desktop."""

import napari

PLUGIN, WIDGET, SAMPLE = "napari-meduet", "MeDUET style swap", "ct"


def open_demo() -> napari.Viewer:
    """Return a viewer with the CT sample and the dock open."""
    viewer = napari.Viewer(title="napari-meduet")
    viewer.open_sample(PLUGIN, SAMPLE)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    return viewer


def main() -> None:
    """Open the viewer and wait until its window is closed."""
    open_demo()
    napari.run()


if __name__ == "__main__":
    main()

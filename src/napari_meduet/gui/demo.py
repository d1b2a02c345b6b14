"""`make demo` with a screen: napari on two sample scans, the style swap open and ready to run."""

import napari

PLUGIN, WIDGET, SAMPLE = "napari-meduet", "MeDUET style swap", "ct"


def open_demo() -> napari.Viewer:
    """A viewer on the CT sample with the dock open."""
    viewer = napari.Viewer(title="napari-meduet")
    viewer.open_sample(PLUGIN, SAMPLE)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    return viewer


def main() -> None:
    """Open it and stay until its window is closed."""
    open_demo()
    napari.run()


if __name__ == "__main__":
    main()

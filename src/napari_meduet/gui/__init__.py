"""What napari shows and asks. The only place that knows napari, Qt or magicgui."""

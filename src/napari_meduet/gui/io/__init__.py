"""Opening and saving files in napari."""

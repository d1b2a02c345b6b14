"""Where the models of this user are stored, and which models exist. No weights are read."""

import os
import sys
from importlib.resources import files as package_files
from pathlib import Path

from napari_meduet.errors import InputError
from napari_meduet.models.card import read_card


def data_folder() -> Path:
    """Return the folder for user data of this program on this operating system."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "napari-meduet"


def models_folder() -> Path:
    """Return the folder of the user's models: `MEDUET_MODELS`, or `models` in the user data folder."""
    return Path(os.environ.get("MEDUET_MODELS") or data_folder() / "models").expanduser()


def demo_model_path() -> Path:
    """Return the folder of the embedded model."""
    return Path(str(package_files("napari_meduet.models").joinpath("demo")))


def installed_models() -> list[tuple[str, Path]]:
    """Return name and folder of each model of this user, sorted by name. Other folders are left out."""
    found = []
    for folder in models_folder().glob("[!.]*"):
        try:
            found.append((read_card(folder).name, folder))
        except (InputError, OSError):
            continue
    return sorted(found)

"""What opens at once stays light: no torch behind a menu, no Qt behind a command."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "monai", "SimpleITK", "napari", "vispy", "PyQt6", "PySide6", "qtpy", "magicgui", "superqt"}
WITHOUT_A_SCREEN = """
import importlib, pkgutil, sys

SCREEN = {"napari", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy", "magicgui", "superqt"}

class NoScreen:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in SCREEN:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoScreen())
for package in ("napari_meduet", "meduet_training"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.startswith("napari_meduet.gui"):
            importlib.import_module(module.name)
            print(module.name)
"""


def run(script: str) -> list[str]:
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.parametrize(
    ("module", "may_import"),
    [
        ("napari_meduet", set()),
        ("napari_meduet.cli", set()),
        ("napari_meduet.pipelines", set()),
        ("napari_meduet.pipelines.requests", set()),
        ("napari_meduet.volumes", {"SimpleITK"}),
    ],
)
def test_importing_stays_light(module, may_import):
    loaded = run(f"import sys, {module}; print(*sys.modules)")
    assert module in loaded
    assert HEAVY & {name.split(".")[0] for name in loaded} <= may_import


def test_everything_but_the_gui_works_without_qt():
    imported = run(WITHOUT_A_SCREEN)
    assert "napari_meduet.core.meduet" in imported
    assert "meduet_training.commands.pretrain" in imported

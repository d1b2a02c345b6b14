"""Each half of the project declares what it imports, no less and no more."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OURS = {"napari_meduet", "meduet_training"}
GUI = list(ROOT.glob("src/napari_meduet/gui/**/*.py"))
MAISI = [ROOT / "src/napari_meduet/tokenizers/maisi.py", ROOT / "src/napari_meduet/models/catalogue.py"]
BASE = [path for path in ROOT.glob("src/**/*.py") if path not in GUI]
REMOTE = list(ROOT.glob("training/meduet_training/remote/*.py"))
TRAINING = [path for path in ROOT.glob("training/**/*.py") if path not in REMOTE]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """Names of the distributions that the base and these extras require."""
    lines = PROJECT["dependencies"] + [
        line for extra in extras for line in PROJECT["optional-dependencies"][extra]
    ]
    return {normalised(re.match(r"[\w.-]+", line)[0]) for line in lines}


def imported(paths: Iterable[Path]) -> set[str]:
    """Names of the distributions that these files import, type checking included."""
    modules = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Import(names=names):
                    modules |= {name.name.split(".")[0] for name in names}
                case ast.ImportFrom(module="torch.utils.tensorboard"):
                    modules.add("tensorboard")  # torch only hands it on
                case ast.ImportFrom(module=str(module), level=0):
                    modules.add(module.split(".")[0])
    providers = packages_distributions()
    foreign = modules - OURS - sys.stdlib_module_names
    return {normalised(providers.get(module, [module])[0]) for module in foreign}


@pytest.mark.parametrize(
    ("paths", "extras"),
    [(BASE, ["maisi"]), (GUI, ["gui"]), (TRAINING, ["train"]), (REMOTE, ["remote"])],
    ids=["base", "gui", "training", "remote"],
)
def test_what_is_imported_is_declared(paths, extras):
    assert imported(paths) <= declared(*extras)


def test_only_the_maisi_tokenizer_needs_its_extra():
    assert imported(path for path in BASE if path not in MAISI) <= declared()


@pytest.mark.parametrize(
    ("extra", "paths"),
    [(None, BASE), ("gui", GUI), ("train", TRAINING), ("remote", REMOTE), ("maisi", MAISI)],
)
def test_what_is_declared_is_imported(extra, paths):
    wanted = declared() if extra is None else declared(extra) - declared()
    assert wanted <= imported(paths)

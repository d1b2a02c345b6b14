"""Weights, caches and factors never run code: no pickle, and torch.load in one function only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("src/**/*.py"), *ROOT.glob("training/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
# Published weights of others come as .pt. This function reads them as tensors only.
TORCH_LOAD = ("src/napari_meduet/tokenizers/weight_files.py", "weights_only=True")


def unsafe_calls(code: str) -> list[str]:
    """Each import or call in the code that could unpickle, as its source text."""
    found = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                found += [f"import {name.name}" for name in names if is_pickle(name.name)]
            case ast.ImportFrom(module=str(module)) if is_pickle(module):
                found.append(f"from {module}")
            case ast.Call(func=ast.Attribute(attr="load", value=ast.Name(id="torch"))):
                found.append(ast.unparse(node))
            case ast.Call(keywords=keywords) if any(word.arg == "allow_pickle" for word in keywords):
                found.append(ast.unparse(node))
    return found


def is_pickle(module: str) -> bool:
    return module.split(".")[0] in {
        "pickle",
        "cPickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_unpickles(path):
    calls = unsafe_calls(path.read_text(encoding="utf-8"))
    if path.relative_to(ROOT).as_posix() == TORCH_LOAD[0]:
        assert len(calls) == 1
        assert TORCH_LOAD[1] in calls[0]
    else:
        assert calls == []


def test_the_search_finds_what_it_looks_for():
    code = (
        "import pickle\nfrom joblib import load\ntorch.load(p)\nnp.load(p, allow_pickle=True)\njson.load(f)"
    )
    assert len(unsafe_calls(code)) == 4

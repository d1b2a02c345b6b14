"""Check the documents: links, named paths, modules, commands and options exist, and examples run."""

import pkgutil
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]
PROGRAMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
SAMPLES = ROOT / "src" / "napari_meduet" / "samples"
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("training/*.md"),
    *SAMPLES.glob("*.md"),
]
PATH = re.compile(r"(?<![\w/.-])(?:src|training|scripts|benchmarks|tests|docs)/[\w./-]*\w")
MODULE = re.compile(r"\b(?:napari_meduet|meduet_training)(?:\.\w+)+")
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(path.read_text("utf-8")) if kind == language]


def commands(path: Path) -> list[list[str]]:
    """Return the words of every call of a program of this project in the document's shell blocks."""
    shell = "\n".join(blocks(path, "bash") + blocks(path, "console")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in shell.splitlines()]
    calls = [shlex.split(line, comments=True) for line in lines if line.split(" ")[0] in PROGRAMS]
    return [call[: call.index("|")] if "|" in call else call for call in calls]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and not target.startswith(("http", "mailto"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_named_path_and_module_exists(path):
    text = path.read_text("utf-8")
    assert {named for named in PATH.findall(text) if not (ROOT / named).exists()} == set()
    for module in set(MODULE.findall(text)):
        pkgutil.resolve_name(module)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path)], ids=name)
def test_every_command_and_option_exists(path):
    for words in commands(path):
        command = typer.main.get_command(pkgutil.resolve_name(PROGRAMS[words[0]]))
        parameters = list(command.params)
        for word in words[1:]:
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
                parameters += command.params
        known = {
            option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)
        }
        shown = {word.split("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
        assert shown <= known | {"--help"}, " ".join(words)


@pytest.mark.parametrize("document", ["README.md", "docs/how-to/python.md"])
def test_the_python_examples_run(document, tmp_path, monkeypatch):
    shutil.copy(SAMPLES / "ct_chest_soft_kernel.nii.gz", tmp_path / "content.nii.gz")
    shutil.copy(SAMPLES / "ct_chest_sharp_kernel.nii.gz", tmp_path / "style.nii.gz")
    monkeypatch.chdir(tmp_path)
    session = {}
    for example in blocks(ROOT / document, "python"):
        exec(compile(example, document, "exec"), session)  # noqa: S102 our own examples
    assert (tmp_path / "swapped.nii.gz").is_file()
    assert (tmp_path / "swapped.json").is_file()

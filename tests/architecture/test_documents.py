"""What the documents promise exists: linked files, shown commands and options, code that runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from napari_meduet.cli import app

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "src" / "napari_meduet" / "samples"
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("training/*.md"),
    *SAMPLES.glob("*.md"),
]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(path.read_text("utf-8")) if kind == language]


def commands(path: Path) -> list[list[str]]:
    """The words of every call of `meduet` in the document's shell blocks."""
    lines = "\n".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    calls = [shlex.split(line, comments=True) for line in lines if re.match(r"\s*meduet\s", line)]
    return [call[1 : call.index("|")] if "|" in call else call[1:] for call in calls]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and not target.startswith(("http", "mailto"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path)], ids=name)
def test_every_command_and_option_exists(path):
    program = typer.main.get_group(app)
    for words in commands(path):
        command = program.commands[words[0]] if not words[0].startswith("-") else program
        known = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        shown = {word.split("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
        assert shown <= known, f"meduet {' '.join(words)}"


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

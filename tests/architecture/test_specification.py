"""Cited tags have a definition: M, C and P tags in docs/specification.md, fault rows in docs/reliability.md.

Texts are read from the files; nothing is imported.
"""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "training", "tests", "benchmarks", "scripts", "docs")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("specification", "reliability")}
NUM_TRAINING_FAULTS, NUM_INTERFACE_FAULTS = 20, 14

TAG = re.compile(r"\b[MCP]-\d\d\b")
ENTRY = re.compile(r'^- \*\*([MCP]-\d\d)\*\* <a id="([mcp]-\d\d)"></a>\S', re.MULTILINE)
FAULT = re.compile(r"\b[TG]\d{1,2}\b")
FAULT_ROW = re.compile(r"^\| ([TG]\d+) \| (.+) \|$", re.MULTILINE)
SECTION = re.compile(r"^## (\d+)\. ", re.MULTILINE)
# "docs/specification.md, section 9", or where a line is short of room "specification, sections 7-10"
CITED_SECTIONS = re.compile(
    r"\b(specification|reliability)(?:\.md)?,?\s+sections?\s+(\d+(?:(?:-|–|,\s+|\s+to\s+|\s+and\s+)\d+)*)",
    re.IGNORECASE,
)


@cache
def texts() -> dict[str, str]:
    """Python and Markdown files of the repository, and its configuration."""
    paths = [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"]
    for folder in FOLDERS:
        paths += [path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md"}]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(paths)}


def cited_tags() -> list[str]:
    return sorted({tag for text in texts().values() for tag in TAG.findall(text)})


def fault_rows() -> dict[str, list[str]]:
    """The cells behind each tag of the fault tables."""
    rows = FAULT_ROW.findall(PAGES["reliability"])
    assert len({tag for tag, _ in rows}) == len(rows), "a fault has two rows"
    return {tag: [cell.strip() for cell in cells.split(" | ")] for tag, cells in rows}


def fault_test_folder() -> Path:
    (path,) = (ROOT / "tests").rglob("fault_rows.py")
    return path.parent


def named_rows() -> set[str]:
    """The keys of ROWS in fault_rows.py, which name the rows that the tests and the soak run."""
    tree = ast.parse((fault_test_folder() / "fault_rows.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ROWS":
            assert isinstance(node.value, ast.Dict)
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise AssertionError("fault_rows.py defines no ROWS")


@pytest.mark.parametrize("tag", cited_tags())
def test_every_cited_tag_has_exactly_one_entry(tag):
    entries = Counter(name for name, _ in ENTRY.findall(PAGES["specification"]))
    citing = [path for path, text in texts().items() if tag in TAG.findall(text)]
    assert entries[tag] == 1, f"{tag} is cited in {', '.join(citing)}"


def test_every_entry_has_its_own_anchor():
    entries = ENTRY.findall(PAGES["specification"])
    assert entries
    assert [anchor for _, anchor in entries] == [tag.lower() for tag, _ in entries]
    assert len(re.findall(r"^- \*\*[MCP]-", PAGES["specification"], re.MULTILINE)) == len(entries)


def test_the_fault_tables_are_complete():
    training = [f"T{number}" for number in range(1, NUM_TRAINING_FAULTS + 1)]
    interface = [f"G{number}" for number in range(1, NUM_INTERFACE_FAULTS + 1)]
    rows = fault_rows()
    assert list(rows) == training + interface
    for tag, cells in rows.items():
        assert len(cells) == (3 if tag in training else 2), f"{tag} has {len(cells)} cells behind its tag"
        assert all(cells), f"{tag} has an empty cell"
    assert all(rows[tag][2].isdigit() for tag in training)


def test_every_fault_that_the_tests_cite_has_a_row():
    cited = named_rows()
    for path in [*fault_test_folder().glob("*.py"), ROOT / "scripts" / "soak.py"]:
        cited |= set(FAULT.findall(path.read_text("utf-8")))
    assert named_rows()
    assert cited - set(fault_rows()) == set()


def test_every_training_fault_is_cited_by_a_test():
    paths = [*fault_test_folder().glob("*.py"), ROOT / "scripts" / "soak.py"]
    cited = {tag for path in paths for tag in FAULT.findall(path.read_text("utf-8"))}
    assert {tag for tag in fault_rows() if tag.startswith("T")} - cited == set()


def test_every_cited_section_exists():
    missing = [
        f"{path}: {page}.md, section {number}"
        for path, text in texts().items()
        for page, numbers in CITED_SECTIONS.findall(text)
        for number in re.findall(r"\d+", numbers)
        if number not in SECTION.findall(PAGES[page.lower()])
    ]
    assert missing == []


def test_faults_cited_beside_the_page_have_rows():
    cited = {
        tag
        for text in texts().values()
        for line in text.splitlines()
        if "reliability.md" in line
        for tag in FAULT.findall(line.split("reliability.md", 1)[1])
    }
    assert cited - set(fault_rows()) == set()

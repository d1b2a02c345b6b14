"""Each equation has exactly one function in the code, and docs/equations.md names it.

`grep -rn "Eq. (11)" src` must find one function. The test reads the docstrings and imports nothing.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
EXPECTED = range(1, 31)  # what this version implements

# A function may compute several equations at once: "... Eq. (18), Eq. (19)."
FIRST_SENTENCE = re.compile(r"^[^\n]*?((?:Eq\. \(\d+\)(?:, )?)+)\.$")
TABLE_ROW = re.compile(r"^\| (\d+) \| `([\w.]+)` \|")


@cache
def sources() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))}


@cache
def homes() -> dict[int, list[str]]:
    """Return the functions and classes of each equation that ends the first sentence of a docstring."""
    found: dict[int, list[str]] = {}
    for path, text in sources().items():
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for name, docstring in documented(ast.parse(text), module):
            if match := FIRST_SENTENCE.match(docstring.split("\n")[0]):
                for number in re.findall(r"\d+", match[1]):
                    found.setdefault(int(number), []).append(name)
    return found


def documented(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Yield qualified names and docstrings of all functions and classes below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield f"{name}.{child.name}", ast.get_docstring(child) or ""
            yield from documented(child, f"{name}.{child.name}")


@pytest.mark.parametrize("equation", EXPECTED)
def test_every_equation_has_exactly_one_home(equation):
    assert len(homes().get(equation, [])) == 1, homes().get(equation)


@pytest.mark.parametrize("equation", EXPECTED)
def test_a_search_for_the_number_ends_there(equation):
    mentions = [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in sources().items()
        for number, line in enumerate(text.splitlines(), start=1)
        if f"Eq. ({equation})" in line
    ]
    assert len(mentions) == 1, (
        f"Write 'Eq. {equation}' without brackets where it is only mentioned: {mentions}"
    )


def test_the_map_and_the_docstrings_agree():
    lines = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8").splitlines()
    rows = [match for match in map(TABLE_ROW.match, lines) if match]
    documented = {int(row[1]): row[2] for row in rows}
    assert len(documented) == len(rows), "an equation has two rows"
    assert documented == {equation: home[0] for equation, home in homes().items()}

"""docs/departures.md names the tests of each departure, and these tests exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "departures.md").read_text(encoding="utf-8")
DEFINED = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", DOCUMENT))))
def test_a_test_that_the_page_names_exists(name):
    assert name in DEFINED


@pytest.mark.parametrize("tag", re.findall(r"^\| (C-\d\d) ", DOCUMENT, flags=re.MULTILINE))
def test_each_correction_is_tested_under_its_tag(tag):
    assert any(name.startswith(f"test_{tag.lower().replace('-', '')}_") for name in DEFINED)

"""The repository names no machine: no absolute path of one, no package registry or mirror."""

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
# The only places a text here may point to: papers, licences, formats, tools and code for people to read.
KNOWN_HOSTS = {
    "arxiv.org",
    "citation-file-format.github.io",
    "creativecommons.org",
    "doi.org",
    "github.com",
    "img.shields.io",
    "json-schema.org",
    "keepachangelog.com",
    "napari.org",
    "pytorch.org",
    "semver.org",
    "www.apache.org",
    "www.cancerimagingarchive.net",
    "www.w3.org",
}
MACHINE_PATH = re.compile(r"(?<![\w.~<>*}$)-])/(?:work|root|opt|tmp|home|Users|mnt|scratch|workspace)/\w")
REGISTRY_OPTION = re.compile(r"--?(?:extra-)?index-url\s*[=\s]\s*\S*\w\.\w|find-links\s*=|trusted[-]host")


def tracked_texts() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout: what is tracked is unknown")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


def traces(text: str) -> list[str]:
    """What in the text would lead to a machine: paths, unknown hosts, registry options."""
    hosts = (urlsplit(url).hostname for url in re.findall(r"https?://[^\s\"'<>)\]`]+", text))
    unknown = [host for host in hosts if host and host not in KNOWN_HOSTS]
    return MACHINE_PATH.findall(text) + REGISTRY_OPTION.findall(text) + unknown


def test_no_tracked_file_names_a_machine():
    found = {
        path.relative_to(ROOT).as_posix(): traces(path.read_text(encoding="utf-8"))
        for path in tracked_texts()
    }
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "text", ["data in /" + "home/me/x", "pip --index" + "-url a.b", "see http:/" + "/mirror.lan/x"]
)
def test_the_search_finds_what_it_looks_for(text):
    assert traces(text)

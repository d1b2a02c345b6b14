"""Published weights: nothing is fetched unasked, and nothing unchecked is opened.

The hub's cache is a folder of the test, laid out as huggingface_hub lays it out, and the hub is out of reach.
"""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from napari_meduet.errors import InputError
from napari_meduet.models.catalogue import PUBLISHED, PublishedWeights, fetch, look_up, recognise

CONTENT = b"some weights"
WEIGHTS = PublishedWeights(
    repository="someone/autoencoder",
    file="models/weights.pt",
    licence="CC BY 4.0",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    megabytes=0.1,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def keep(cache, content):
    """Puts the file where an earlier download would have left it."""
    repository = cache / "models--someone--autoencoder"
    file = repository / "snapshots" / "0123" / WEIGHTS.file
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")


def test_what_was_fetched_before_is_found_offline(cache):
    keep(cache, CONTENT)
    assert fetch(WEIGHTS).read_bytes() == CONTENT


def test_nothing_is_fetched_before_the_licence_is_accepted(monkeypatch):
    def no_connection(*arguments, local_files_only=False, **options):
        assert local_files_only
        raise FileNotFoundError

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_connection)
    with pytest.raises(InputError, match=r"0\.1 MB, licence: CC BY 4\.0.*Accept the licence"):
        fetch(WEIGHTS)


def test_out_of_reach_is_one_sentence():
    with pytest.raises(InputError, match="could not be downloaded"):
        fetch(WEIGHTS, licence_accepted=True)
    with pytest.raises(InputError, match="gave no answer"):
        look_up("someone/autoencoder", "models/weights.pt")


def test_an_accepted_download_is_checked(cache, monkeypatch):
    def download(repository, file, local_files_only=False):
        if local_files_only:
            raise FileNotFoundError
        keep(cache, CONTENT)
        return str(cache / "models--someone--autoencoder" / "snapshots" / "0123" / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch(WEIGHTS, licence_accepted=True).read_bytes() == CONTENT


def test_another_file_than_the_published_one_is_refused(cache):
    keep(cache, b"something else")
    with pytest.raises(InputError, match="not the file that someone/autoencoder published"):
        fetch(WEIGHTS)


def test_a_file_is_recognised_by_its_digest(tmp_path, monkeypatch):
    path = tmp_path / "renamed.pt"
    path.write_bytes(CONTENT)
    assert recognise(path) is None
    monkeypatch.setitem(PUBLISHED, "ours", WEIGHTS)
    assert recognise(path) == WEIGHTS


def answer(licence="mit", sha256="ab" * 32):
    lfs = sha256 and SimpleNamespace(sha256=sha256)
    entry = SimpleNamespace(rfilename=WEIGHTS.file, lfs=lfs, size=12_340_000)
    return SimpleNamespace(siblings=[entry], card_data={"license": licence})


def test_the_hub_tells_licence_digest_and_size(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "model_info", lambda repository, files_metadata: answer())
    found = look_up(WEIGHTS.repository, WEIGHTS.file)
    assert found == replace(WEIGHTS, licence="mit", sha256="ab" * 32, megabytes=12.3)


@pytest.mark.parametrize(
    ("hub", "file", "sentence"),
    [
        (answer(), "other.pt", "no file other.pt"),
        (answer(licence=None), WEIGHTS.file, "no licence"),
        (answer(sha256=None), WEIGHTS.file, "no digest"),
    ],
)
def test_what_the_hub_does_not_tell_is_refused(monkeypatch, hub, file, sentence):
    monkeypatch.setattr(huggingface_hub, "model_info", lambda repository, files_metadata: hub)
    with pytest.raises(InputError, match=sentence):
        look_up(WEIGHTS.repository, file)


@pytest.mark.parametrize("weights", PUBLISHED.values(), ids=PUBLISHED)
def test_the_catalogue_is_complete(weights):
    assert len(bytes.fromhex(weights.sha256)) == 32
    assert weights.licence in weights.sentence
    assert f"{weights.megabytes:g} MB" in weights.sentence

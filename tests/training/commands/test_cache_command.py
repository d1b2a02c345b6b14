"""meduet-cache: a cohort becomes a cache; what does not fit is refused in a sentence, before any work."""

import json
import shutil

import pytest
from caching import entries, save_cohort, save_index, tokenizer_folder
from typer.testing import CliRunner

from meduet_training.commands.cache import EXIT_SOME_FAILED, app
from meduet_training.data.caches.latent_spec import LatentSpec
from meduet_training.data.caches.latents import CACHE_FILE, read_description
from meduet_training.data.cohort.manifest import write_manifest
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.tokenizer_files import load_tokenizer
from napari_meduet.volumes.files import file_sha256


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    save_index(save_cohort(folder / "scans", 3))
    tokenizer_folder(folder / "model")
    tokenizer_folder(folder / "other", seed=1)
    return folder


def call(given, output, *words, manifest="scans", tokenizer="model"):
    return CliRunner().invoke(
        app,
        [str(given / manifest), "-o", str(output), "--tokenizer", str(given / tokenizer), "--device", "cpu"]
        + [str(word) for word in words],
    )


def told(result) -> str:
    assert "Traceback" not in result.output
    return " ".join(result.output.replace("│", " ").split())


def test_a_cohort_is_encoded_once(given, tmp_path):
    first = call(given, tmp_path)
    assert first.exit_code == 0, first.output
    assert "3 scans encoded" in told(first)
    before = entries(tmp_path)
    again = call(given, tmp_path)
    assert again.exit_code == 0
    assert "0 scans encoded (0 million voxels), 3 already in the cache, 0 failed." in told(again)
    assert entries(tmp_path) == before
    assert len(CacheSource(tmp_path, seed=1).rows) == 3


def test_shards_are_parts_of_one_cache(given, tmp_path):
    for part, count in ((1, 2), (2, 1)):
        result = call(given, tmp_path, "--shard", f"{part}/2")
        assert result.exit_code == 0
        assert f"{count} scans encoded" in told(result)
    assert len(entries(tmp_path)) == 3
    assert len(CacheSource(tmp_path, seed=1).rows) == 3


def test_a_manifest_is_read_and_its_hashes_are_believed(given, tmp_path):
    """The files are found beside the manifest, and a row that was left out is not encoded."""
    rows = [
        {
            "path": path.name, "patient": f"p{number}", "domain": "site", "modality": "CT", "split": "train",
            "sha256": file_sha256(path), "left_out": "too small" if number == 2 else None,
        }
        for number, path in enumerate(sorted((given / "scans").glob("*.nii.gz")))
    ]  # fmt: skip
    write_manifest(given / "scans" / "cohort.csv", rows)
    result = call(given, tmp_path, manifest="scans/cohort.csv")
    assert result.exit_code == 0, result.output
    assert "2 scans encoded" in told(result)
    assert {row.patient for row in CacheSource(tmp_path, seed=1).rows} == {"p0", "p1"}


def test_a_bad_scan_is_in_the_exit_code_and_not_by_name(given, tmp_path):
    shutil.copytree(given / "scans", tmp_path / "scans")
    (tmp_path / "scans" / "smith_john_2.nii.gz").write_bytes(b"no scan")
    shutil.copytree(given / "model", tmp_path / "model")
    result = call(tmp_path, tmp_path / "cache")
    assert result.exit_code == EXIT_SOME_FAILED
    assert "2 scans encoded" in told(result)
    assert "1 failed. Scan 2 (" in told(result)
    assert "smith" not in result.output
    strict = call(tmp_path, tmp_path / "strict", "--strict")
    assert strict.exit_code == 2
    assert "Scan 2 (" in told(strict)


def test_nothing_in_a_cache_names_a_scan_or_a_path(given, tmp_path):
    assert call(given, tmp_path / "cache").exit_code == 0
    for path in (tmp_path / "cache").rglob("*"):
        assert "smith" not in path.name
        if path.is_file():
            content = path.read_bytes()
            assert b"smith" not in content
            assert str(given).encode() not in content


def test_a_cache_of_another_tokenizer_is_refused(given, tmp_path):
    assert call(given, tmp_path).exit_code == 0
    before = entries(tmp_path)
    refused = call(given, tmp_path, tokenizer="other")
    assert refused.exit_code == 2
    mine, other = (load_tokenizer(given / name)[1].tokenizer_sha256[:8] for name in ("model", "other"))
    assert f"was made by another tokenizer (wavelet {mine}, not wavelet {other})" in told(refused)
    assert entries(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"profiles": {"CT": {"name": "ct-wide", "knots": [[-1000, 0], [1000, 1]]}}},
            "with other intensity profiles (CT ct-wide, not CT ct-full and MR mr)",
        ),
        ({"spacing_mm": 2.0}, "on another spacing (2 mm, not 1.5 mm)"),
        ({"preparation": 0}, "by a version that prepares scans differently"),
    ],
)
def test_a_cache_of_another_preparation_is_refused(given, tmp_path, change, reason):
    assert call(given, tmp_path).exit_code == 0
    description = json.loads((tmp_path / CACHE_FILE).read_text())
    description["spec"] |= change
    (tmp_path / CACHE_FILE).write_text(json.dumps(description))
    refused = call(given, tmp_path)
    assert refused.exit_code == 2
    assert f"this cache was made {reason}" in told(refused)


def test_verify_finds_what_a_plain_run_does_not_look_at(given, tmp_path):
    assert call(given, tmp_path).exit_code == 0
    path = sorted((tmp_path / "entries").iterdir())[0]
    before = path.read_bytes()
    path.write_bytes(before[:-50] + b"\xff" + before[-49:])
    assert "3 already in the cache" in told(call(given, tmp_path))
    result = call(given, tmp_path, "--verify")
    assert result.exit_code == 0
    assert "1 scans encoded" in told(result)
    assert "its entry was replaced, because a checksum is wrong" in told(result)
    assert path.read_bytes() == before


def test_the_channel_maps_are_kept_with_the_cache(given, tmp_path):
    assert call(given, tmp_path).exit_code == 0
    description = read_description(tmp_path)
    assert set(description.channel_maps) == {"flip x", "flip y", "flip z", "quarter turn"}
    assert isinstance(description.spec, LatentSpec)


@pytest.mark.parametrize(
    ("words", "options", "sentence"),
    [
        ([], {"manifest": "absent.csv"}, "there is no such manifest"),
        ([], {"manifest": "model"}, "holds no index.json"),
        ([], {"tokenizer": "absent"}, "there is no such tokenizer"),
        ([], {"tokenizer": "scans"}, "scans: holds no tokenizer"),
        (["--shard", "3/2"], {}, "got 3/2"),
        (["--shard", "0/2"], {}, "got 0/2"),
        (["--shard", "half"], {}, "--shard has the form K/N, such as 1/4; got 'half'"),
        (["--workers", "0"], {}, "must be at least 1; got 0"),
        (["--device", "tpu"], {}, "got 'tpu'"),
        (["--epochs", "1"], {}, "No such option"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(given, tmp_path, words, options, sentence):
    result = call(given, tmp_path / "cache", *words, **options)
    assert result.exit_code == 2
    assert sentence in told(result)
    assert not (tmp_path / "cache").exists()


def test_copies_in_a_manifest_are_refused(given, tmp_path):
    shutil.copytree(given, tmp_path / "given")
    scans = tmp_path / "given" / "scans"
    shutil.copy(scans / "smith_john_1.nii.gz", scans / "smith_john_3.nii.gz")
    result = call(tmp_path / "given", tmp_path / "cache")
    assert result.exit_code == 2
    assert "Scans 1 and 3 of the manifest are the same scan" in told(result)

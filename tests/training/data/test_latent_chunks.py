"""Latents in cubes: every crop is what was written, and every damage is found."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from meduet_training.data.caches.latent_chunks import CHUNK_SIDE, CorruptedFile, open_chunks, save_chunks

SHAPE = (19, 8, 13)  # whole cubes along one axis alone


@pytest.fixture(scope="module")
def latent():
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def path(latent, tmp_path_factory):
    path = tmp_path_factory.mktemp("cubes") / "a.safetensors"
    save_chunks(path, latent, json.dumps({"key": "a"}))
    return path


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_crop_is_that_part_of_the_latent(path, latent, data):
    ends = [sorted((data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n)))) for n in SHAPE]
    corner = tuple(low for low, _ in ends)
    size = tuple(max(1, high - low) for low, high in ends)
    box = tuple(slice(start, start + width) for start, width in zip(corner, size, strict=True))
    crop = open_chunks(path).read(corner, size)
    assert crop.dtype == torch.bfloat16
    assert torch.equal(crop, latent[(slice(None), *box)].bfloat16())


def test_what_stands_beside_the_latent_comes_back(path, latent):
    file = open_chunks(path)
    assert (json.loads(file.record), file.rows, file.shape) == ({"key": "a"}, 3, SHAPE)
    assert torch.equal(file.read_all(), latent.bfloat16())


def test_any_reader_of_safetensors_opens_it(path, latent):
    cubes = load_file(path)["latent"]
    assert cubes.shape == (3, 1, 2, 3, CHUNK_SIDE, CHUNK_SIDE, CHUNK_SIDE)
    assert torch.equal(cubes[0, 0, 0], latent[:, :CHUNK_SIDE, :CHUNK_SIDE, :CHUNK_SIDE].bfloat16())


def test_a_crop_reads_no_cube_that_it_does_not_touch(path, tmp_path):
    """The first cube is damaged: crops beside it are as before, crops that touch it are refused."""
    content = bytearray(path.read_bytes())
    content[open_chunks(path).offset] ^= 1
    (tmp_path / "a").write_bytes(content)
    file = open_chunks(tmp_path / "a")
    assert torch.equal(file.read((8, 0, 0), (8, 8, 13)), open_chunks(path).read((8, 0, 0), (8, 8, 13)))
    with pytest.raises(CorruptedFile, match="checksum"):
        file.read((7, 0, 0), (8, 8, 8))


def test_a_flipped_bit_is_found_in_every_part_of_the_file(path, tmp_path):
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    spread = range(header, len(content), 997)
    for place in [*range(header), *spread]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "a").write_bytes(damaged)
        try:
            same = torch.equal(open_chunks(tmp_path / "a").read_all(), open_chunks(path).read_all())
        except (CorruptedFile, OSError):
            continue
        assert same, place  # as a space of the header's padding that became another blank
        assert open_chunks(tmp_path / "a").record == open_chunks(path).record


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1, -4, -20_000])
def test_a_file_that_was_cut_off_is_refused(path, tmp_path, length):
    (tmp_path / "a").write_bytes(path.read_bytes()[:length])
    with pytest.raises(CorruptedFile, match=r"truncated|no entry of a latent cache"):
        open_chunks(tmp_path / "a")


def test_a_file_that_shrinks_while_it_is_open_is_an_error_and_no_crash(path, tmp_path):
    (tmp_path / "a").write_bytes(path.read_bytes())
    file = open_chunks(tmp_path / "a")
    with (tmp_path / "a").open("r+b") as opened:
        opened.truncate(file.offset + 10)
    with pytest.raises(CorruptedFile, match="truncated"):
        file.read_all()


def test_a_header_that_promises_more_than_memory_holds_is_refused(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[:8] = (2**62).to_bytes(8, "little")
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CorruptedFile, match="no entry of a latent cache"):
        open_chunks(tmp_path / "a")

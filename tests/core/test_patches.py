import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.patches import patchify, unpatchify


def test_the_papers_latent_becomes_216_patches_of_256_values():
    assert patchify(torch.zeros(2, 4, 24, 24, 24), 4).shape == (2, 216, 256)


def test_patches_run_along_z_first():
    latent = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert patchify(latent, 1).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@given(st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 3), st.integers(1, 3))
def test_unpatchify_undoes_patchify(grid, channels, size):
    latent = torch.randn(2, channels, *(n * size for n in grid))
    assert torch.equal(unpatchify(patchify(latent, size), grid, size), latent)

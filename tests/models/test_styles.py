"""A style survives its file to the last bit, and is refused where it means nothing."""

import pytest
import torch

from napari_meduet.core.factors import StyleStatistics
from napari_meduet.core.texture import BAND_EDGES_MM, BandEnergies
from napari_meduet.errors import InputError
from napari_meduet.models.styles import Style, load_style, pack_styles, unpack_styles


def a_style(**changes) -> Style:
    torch.manual_seed(0)
    fields = {
        "statistics": StyleStatistics(mean=torch.randn(12), std=torch.rand(12)),
        "spread": 1 / 3,
        "texture": BandEnergies(tuple(10 / (band + 3) for band in range(len(BAND_EDGES_MM))), 0.7),
        "modality": "CT",
        "num_scans": 3,
        "model_sha256": "a" * 64,
        "working_spacing_mm": 1.5,
    }
    return Style(**(fields | changes))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "site.style"
    path.write_bytes(pack_styles({"style": a_style()}, {"kind": "prototype"}))
    return path


def test_a_style_comes_back_to_the_last_bit(saved):
    style, again = a_style(), load_style(saved)
    assert torch.equal(again.statistics.mean, style.statistics.mean)
    assert torch.equal(again.statistics.std, style.statistics.std)
    assert again.texture == style.texture
    assert (again.spread, again.modality, again.num_scans) == (style.spread, "CT", 3)


def test_a_style_is_a_few_kilobytes(saved):
    assert saved.stat().st_size < 4096


def test_unmeasured_texture_survives_too(tmp_path):
    path = tmp_path / "air.style"
    path.write_bytes(pack_styles({"style": a_style(texture=BandEnergies((), 0.7))}))
    assert load_style(path).texture == BandEnergies((), 0.7)


def test_a_style_of_another_model_is_refused():
    with pytest.raises(InputError, match="made by another model"):
        a_style().check_model("b" * 64, "site.style")


def test_every_truncation_is_refused(saved, tmp_path):
    content, cut = saved.read_bytes(), tmp_path / "cut.style"
    for length in range(0, len(content), 97):
        cut.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.style"):
            load_style(cut)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"pixel_mm\\": 0.7', b'"pixel_mm\\": NaN'),
        (b"napari-meduet style 1", b"napari-meduet style 9"),
        (b'"bands_mm\\": [0.45', b'"bands_mm\\": [0.55'),
        (b'\\"modality\\"', b'\\"m0dality\\"'),
    ],
)
def test_edited_metadata_is_refused(saved, old, new):
    content = saved.read_bytes()
    assert old in content
    saved.write_bytes(content.replace(old, new.ljust(len(old))))
    with pytest.raises(InputError, match=r"site\.style"):
        load_style(saved)


def test_infinite_numbers_are_refused(tmp_path):
    broken = a_style(statistics=StyleStatistics(mean=torch.full((12,), torch.inf), std=torch.ones(12)))
    with pytest.raises(InputError, match="damaged"):
        unpack_styles(pack_styles({"style": broken}), "broken.style")


def test_several_styles_keep_their_names():
    styles = unpack_styles(pack_styles({"site a": a_style(), "site b": a_style(num_scans=5)}), "styles")
    assert {name: style.num_scans for name, style in styles.items()} == {"site a": 3, "site b": 5}

"""Latent windows: one anatomy in several appearances, labelled as it is."""

from dataclasses import replace

import pytest
import torch
from small import CPU, WAVELET, random_windows, working_scan

from meduet_training.data.caches.latent_spec import spec_of, tokenizer_sha256
from meduet_training.data.caches.latent_windows import load_windows, make_windows, save_windows
from meduet_training.data.caches.prepared import save_prepared
from meduet_training.data.caches.windows import cached_windows
from napari_meduet.errors import InputError
from napari_meduet.tokenizers.wavelet import WaveletTokenizer
from napari_meduet.volumes.intensity import CT_FULL, CT_SOFT


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return WaveletTokenizer(WAVELET).eval()


@pytest.fixture(scope="module")
def scans():
    """A CT, and two sequences of one session that happen to show the same numbers."""
    return [
        working_scan("CT", domain="ct"),
        working_scan("MR", domain="mr-T1", aligned="session"),
        working_scan("MR", domain="mr-T2", aligned="session"),
    ]


@pytest.fixture(scope="module")
def windows(scans, tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meduet_training.data.caches.latent_windows.REGISTERED_WEIGHT", 2)
        return make_windows(scans, tokenizer, groups=1, seed=0, device=CPU)


def test_shapes(windows):
    # CT: 1 anatomy in 4 appearances. Session: 2 anatomies of 2 sequences in 2 appearances.
    assert windows.mean.shape == windows.log_variance.shape == (12, 4, 24, 24, 24)
    assert windows.coverage.shape == (12, 216)
    assert 0 <= windows.coverage.min() < windows.coverage.max() <= 1


def test_one_anatomy_is_one_place(windows):
    assert windows.anatomy.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for anatomy in range(3):
        coverage = windows.coverage[windows.anatomy == anatomy]
        assert torch.equal(coverage, coverage[:1].expand_as(coverage))
    # Seen by the plain scanner, equal numbers at one place are equal latents; at another place they are not.
    assert torch.equal(windows.mean[4], windows.mean[6])
    assert not torch.equal(windows.mean[4], windows.mean[8])


def test_appearances_and_domains_are_those_of_scan_and_scanner(windows):
    assert windows.appearance.tolist() == [0, 1, 3, 6, 100, 101, 200, 201, 100, 102, 200, 202]
    names = [windows.domains[domain] if domain >= 0 else None for domain in windows.domain.tolist()]
    assert names == [
        "ct", "simulated-CT-0", "simulated-CT-2", None,
        "mr-T1", "simulated-MR-0", "mr-T2", "simulated-MR-0",
        "mr-T1", "simulated-MR-1", "mr-T2", "simulated-MR-1",
    ]  # fmt: skip


def test_another_scanner_gives_another_latent(windows):
    plain = windows.mean[0].float()
    for row in (1, 2, 3):
        assert (windows.mean[row].float() - plain).abs().max() > 0.05


def test_a_seed_makes_the_same_windows_again(windows, scans, tokenizer):
    again = make_windows(scans[:1], tokenizer, groups=1, seed=5, device=CPU)
    assert again.sha256 == make_windows(scans[:1], tokenizer, groups=1, seed=5, device=CPU).sha256
    assert again.sha256 != make_windows(scans[:1], tokenizer, groups=1, seed=6, device=CPU).sha256


def test_they_come_back_as_they_were_written(windows, tmp_path):
    save_windows(windows, tmp_path / "windows.safetensors")
    back = load_windows(tmp_path / "windows.safetensors")
    assert (back.domains, back.tokenizer_sha256) == (windows.domains, windows.tokenizer_sha256)
    for name, value in vars(windows).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(back, name), value)
    assert back.sha256 == windows.sha256


def test_the_digest_sees_every_label_and_the_latents():
    windows = random_windows()
    changes = [
        {"mean": windows.mean + 1},
        {"coverage": windows.coverage * 0.5},
        {"anatomy": windows.anatomy + 1},
        {"appearance": windows.appearance + 1},
        {"domain": windows.domain.flip(0)},
        {"domains": ("a", "b", "c")},
        {"tokenizer_sha256": "1"},
    ]
    assert len({windows.sha256, *(replace(windows, **change).sha256 for change in changes)}) == 8


def test_statistics_are_those_of_the_body():
    windows = random_windows(num_anatomies=2)
    mean = torch.zeros_like(windows.mean)
    mean[..., :4, :, :] = 3.0  # the first half of the tokens is body, and there
    mean[..., :2, :, :] = 5.0  # half is 5, half is 3: mean 4, deviation 1
    coverage = windows.coverage.clone()
    coverage[:, 4:] = 0.4
    found_mean, found_std = replace(windows, mean=mean, coverage=coverage).statistics()
    torch.testing.assert_close(found_mean, torch.full((4,), 4.0))
    torch.testing.assert_close(found_std, torch.ones(4), atol=2e-3, rtol=0)


def test_windows_are_made_once_for_each_tokenizer(tmp_path, scans, tokenizer):
    save_prepared(scans[0], tmp_path / "scan.safetensors")

    def cached(by):
        prepared = [tmp_path / "scan.safetensors"]
        return cached_windows(prepared, by, spec_of(by), tmp_path, groups=1, seed=0, device=CPU)

    first = cached(tokenizer)
    (file,) = tmp_path.glob("windows-*")
    written = file.stat().st_mtime_ns
    assert cached(tokenizer).sha256 == first.sha256
    assert file.stat().st_mtime_ns == written
    other = WaveletTokenizer(WAVELET)
    assert cached(other).tokenizer_sha256 == tokenizer_sha256(other) != first.tokenizer_sha256
    assert len(list(tmp_path.glob("windows-*"))) == 2


def test_what_holds_no_windows_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.safetensors: there is no such file"):
        load_windows(tmp_path / "gone.safetensors")
    save_windows(random_windows(), tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    save_prepared(working_scan("CT"), tmp_path / "scan.safetensors")
    for name in ("cut", "scan"):
        with pytest.raises(InputError, match=rf"{name}\.safetensors: no latent windows, damaged"):
            load_windows(tmp_path / f"{name}.safetensors")


def test_windows_keep_the_intensity_profile_that_they_were_made_with(tokenizer, tmp_path):
    soft, full = (
        make_windows([working_scan("CT")], tokenizer, groups=1, seed=0, device=CPU, ct_profile=profile)
        for profile in (CT_SOFT, CT_FULL)
    )
    save_windows(soft, tmp_path / "windows.safetensors")
    assert load_windows(tmp_path / "windows.safetensors").ct_profile == CT_SOFT
    assert full.ct_profile == CT_FULL
    assert not torch.equal(soft.mean, full.mean)

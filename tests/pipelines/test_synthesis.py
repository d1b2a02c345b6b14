"""The laws of a synthesis. They hold for any weights, so the weights here are random."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import save_tiny_generator, save_tiny_model

from napari_meduet.core.synthesis.generator import Conditions
from napari_meduet.core.synthesis.samplers import euler, time_grid
from napari_meduet.errors import Cancelled, InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_generator, save_model
from napari_meduet.pipelines import (
    PrototypeRequest,
    SynthesisRequest,
    make_prototype,
    open_synthesis,
    read_volume,
    synthesize,
)
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.pipelines.synthesis import sampling as sampling_module
from napari_meduet.pipelines.synthesis.conditions import ScanReader, same_content
from napari_meduet.pipelines.synthesis.outputs import output_paths


def request(model, *scans, **options) -> SynthesisRequest:
    quick = {"sampler": "euler", "steps": 2, "seed": 1, "device": "cpu"}
    return SynthesisRequest(*scans, model=model, **quick | options)


@pytest.fixture(scope="module")
def session(generating_model, smooth_ct, noisy_ct):
    """Content of one scan, style of another."""
    return open_synthesis(request(generating_model, smooth_ct, noisy_ct))


def voxels_of(result) -> np.ndarray:
    return result.samples[0].voxels


def test_the_same_seed_gives_the_same_volume_bit_for_bit(session, generating_model, smooth_ct, noisy_ct):
    one = voxels_of(session.sample())
    other = voxels_of(synthesize(request(generating_model, smooth_ct, noisy_ct)))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, voxels_of(session.sample(seed=2)))


def test_a_seed_that_was_drawn_is_recorded_and_repeats_the_volume(generating_model):
    first = synthesize(request(generating_model, seed=None))
    seed = first.provenances[0]["seed"]
    assert np.array_equal(voxels_of(first), voxels_of(synthesize(request(generating_model, seed=seed))))


def test_the_seeds_of_several_volumes_count_on(session):
    several, second = session.sample(count=2), session.sample(seed=2)
    assert [record["seed"] for record in several.provenances] == [1, 2]
    assert np.array_equal(several.samples[1].voxels, voxels_of(second))


def test_without_guidance_the_conditional_model_is_sampled(session):
    model = session.model
    conditions = Conditions(
        content=session.content.pooled[None],
        style=session.style.pooled[None],
        drops_content=torch.tensor([False]),
        drops_style=torch.tensor([False]),
        spatial_content=session.content.tokens.flatten(0, 2)[None],
    )

    def velocity(x, time):
        data = model.generator(x, torch.tensor([time]), conditions)
        return (x - data) / time

    noise = torch.randn(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        *_, last = euler(velocity, noise, time_grid(2))
        units = model.tokenizer.decode(model.restored(last.x))[0, 0]
    expected = session.place.profile.decode(units.numpy())
    found = session.sample(content_weight=0.0, style_weight=0.0).samples[0].values()
    assert np.abs(found - expected).max() <= 1  # HU; rounding to whole ones
    guided = session.sample(content_weight=0.0, style_weight=2.0).samples[0].values()
    assert np.abs(guided - found).max() > 1


def test_another_style_keeps_content_and_noise(session, generating_model, smooth_ct):
    other = session.with_style(smooth_ct)
    assert np.array_equal(
        voxels_of(other.sample()), voxels_of(synthesize(request(generating_model, smooth_ct, smooth_ct)))
    )
    assert not np.array_equal(voxels_of(other.sample()), voxels_of(session.sample()))
    assert not np.array_equal(voxels_of(session.with_style(None).sample()), voxels_of(session.sample()))


def test_a_prototype_of_a_scan_is_its_style(session, generating_model, noisy_ct, tmp_path):
    asked = PrototypeRequest([noisy_ct], model=generating_model, device="cpu")
    make_prototype(asked).save(tmp_path / "site.style")
    assert np.array_equal(
        voxels_of(session.with_style(tmp_path / "site.style").sample()), voxels_of(session.sample())
    )


def test_a_domain_goes_by_its_name(session, noisy_ct, tmp_path):
    model = session.model
    asked = PrototypeRequest([noisy_ct], model=session.request.model, device="cpu")
    styles = {"site a": make_prototype(asked).style}
    folder = tmp_path / "model"
    save_model(folder, model.card, model.tokenizer.state_dict(), model.meduet.state_dict(), styles)
    save_tiny_generator(folder)
    result = synthesize(request(folder, None, "site a"))
    assert result.provenances[0]["parameters"]["style_domain"] == "site a"
    with pytest.raises(InputError, match="no style that the model knows: site a"):
        synthesize(request(folder, None, "site b"))


def test_the_result_lies_where_its_content_does(session, smooth_ct):
    """The smaller box around the body is a part of the larger one, and the affines say which."""
    reader = ScanReader(session.model, null_progress)
    source, scan = reader.read("content", smooth_ct, session.request.content_choice)
    small, large = (same_content(session.model, source, scan, size) for size in ((2, 2, 2), (3, 4, 3)))
    steps = np.linalg.inv(large.affine) @ small.affine
    assert np.allclose(steps[:3, :3], np.eye(3))
    x, y, z = np.rint(steps[:3, 3] / 16).astype(int)
    assert np.allclose(steps[:3, 3] / 16, (x, y, z))
    assert torch.equal(large.tokens[x : x + 2, y : y + 2, z : z + 2], small.tokens)
    scan_affine = read_volume(smooth_ct).affine
    own = session.sample().samples[0].affine
    assert np.allclose(np.linalg.norm(own[:3, :3], axis=0), 1.5)
    cosines = np.abs(scan_affine[:3, :3].T @ own[:3, :3]) / np.outer(
        np.linalg.norm(scan_affine[:3, :3], axis=0), (1.5, 1.5, 1.5)
    )
    assert np.allclose(cosines, np.eye(3), atol=1e-6)  # along the axes of the oblique scan
    centre = own @ [15.5, 15.5, 15.5, 1]
    middle_of_scan = scan_affine @ [21.5, 19.5, 12.5, 1]
    assert np.linalg.norm((centre - middle_of_scan)[:3]) < 24  # a token


def test_what_has_no_place_is_centred_at_the_origin(generating_model, smooth_ct, noisy_ct):
    result = synthesize(request(generating_model, smooth_ct, noisy_ct, anatomy="similar"))
    affine = result.samples[0].affine
    assert np.allclose((affine @ [15.5, 15.5, 15.5, 1])[:3], 0)
    assert np.allclose(affine[:3, :3], 1.5 * np.eye(3))


def test_less_noise_keeps_more_of_the_scan_to_start_from(generating_model, smooth_ct):
    asked = request(generating_model, smooth_ct, start_from=smooth_ct, steps=1)
    session = open_synthesis(asked)
    assert np.array_equal(session.place.affine, session.content.affine)
    start = session.start.latent

    def after(noise):
        draws = torch.Generator().manual_seed(1)
        eps = torch.randn(1, 4, 8, 8, 8, generator=draws)
        return float(((1 - noise) * start + noise * eps - start).norm())

    assert after(0.1) < after(0.9)
    assert not np.array_equal(voxels_of(session.sample(noise=0.2)), voxels_of(session.sample(noise=0.9)))
    assert session.sample(noise=0.2).provenances[0]["parameters"]["start_noise"] == 0.2


def test_the_generators_own_size_is_the_default(session, generating_model, smooth_ct, noisy_ct):
    same = synthesize(request(generating_model, smooth_ct, noisy_ct, size=(32, 32, 32)))
    assert np.array_equal(voxels_of(same), voxels_of(session.sample()))


def test_larger_sizes_are_made_of_windows(generating_model, smooth_ct, noisy_ct):
    result = synthesize(request(generating_model, smooth_ct, noisy_ct, size=(48, 32, 32)))
    assert voxels_of(result).shape == (48, 32, 32)
    assert not any("repeat" in warning for warning in result.warnings)
    assert any("repeat" in w for w in synthesize(request(generating_model, size=(48, 32, 32))).warnings)


def test_mr_takes_its_range_from_the_scan_that_is_given(generating_model, mr):
    result = synthesize(request(generating_model, mr, mr))
    volume, knots = result.samples[0], open_synthesis(request(generating_model, mr)).place.profile.knots
    assert (volume.modality, volume.voxels.dtype) == ("MR", np.float32)
    assert knots[0][0] <= volume.voxels.min()
    assert volume.voxels.max() <= knots[-1][0]


@pytest.mark.parametrize("sampler", ["heun", "multistep", "em"])
def test_every_sampler_of_a_sit_arrives(session, sampler):
    assert np.ptp(voxels_of(session.sample(sampler=sampler))) > 0


def test_a_dit_has_its_own_samplers(tmp_path):
    model = save_tiny_generator(save_tiny_model(tmp_path / "dit"), prediction="noise")
    for sampler in ("ddpm", "ddim"):
        assert np.ptp(voxels_of(synthesize(request(model, sampler=sampler)))) > 0
    with pytest.raises(InputError, match="ddim or ddpm"):
        synthesize(request(model, sampler="heun"))


def test_the_record_says_what_made_it(session, smooth_ct, noisy_ct, tmp_path):
    result = session.sample()
    (path,) = result.save(tmp_path / "made.nii.gz")
    assert path.name == "made_synthetic.nii.gz"
    record = json.loads((tmp_path / "made_synthetic.json").read_text())
    assert record == result.provenances[0]
    assert record["synthetic"] is True
    assert (record["kind"], record["modality"], record["seed"]) == ("generated", "CT", 1)
    digests = {source["role"]: source["sha256"] for source in record["Sources"]}
    assert digests == {"content": read_volume(smooth_ct).sha256, "style": read_volume(noisy_ct).sha256}
    parameters = record["parameters"]
    assert parameters["generator_sha256"] == record["model"]["files"]["generator.safetensors"]
    assert (parameters["sampler"], parameters["steps"], parameters["guidance"]) == ("euler", 2, "paper")
    again = read_volume(path)
    assert again.synthetic == record
    assert np.array_equal(again.voxels, voxels_of(result))
    assert np.allclose(again.affine, result.samples[0].affine, atol=1e-5)


def test_names_say_synthetic(tmp_path):
    names = [path.name for path in output_paths(tmp_path / "a.b.nii", 2)]
    assert names == ["a.b_synthetic-001.nii", "a.b_synthetic-002.nii"]
    assert output_paths(tmp_path / "Synthetic.nii.gz", 1)[0].name == "Synthetic.nii.gz"


def test_previews_come_on_the_way(session):
    seen = []
    session.sample(steps=3, on_preview=seen.append)
    assert (seen[0].sample, seen[0].step, seen[0].num_steps) == (0, 1, 3)
    assert seen[0].volume.voxels.shape == (32, 32, 32)


def cancelling_after(step: int):
    def report(fraction: float, doing: str) -> None:
        if doing.startswith(f"denoising, step {step + 1} "):
            raise Cancelled

    return report


def test_what_was_seen_is_kept_when_it_is_stopped(session, tmp_path):
    seen = []
    result = session.sample(steps=4, count=2, on_progress=cancelling_after(1), on_preview=seen.append)
    assert result.is_partial
    assert np.array_equal(voxels_of(result), seen[-1].volume.voxels)
    parameters = result.provenances[0]["parameters"]
    assert (parameters["is_partial"], parameters["steps_done"], parameters["steps"]) == (True, 1, 4)
    (path,) = result.save(tmp_path / "made.nii.gz")
    assert path.name == "made_synthetic-001_partial.nii.gz"


def test_where_nothing_was_seen_it_is_cancelled(session):
    with pytest.raises(Cancelled):
        session.sample(steps=4, on_progress=cancelling_after(1))
    with pytest.raises(Cancelled):
        session.sample(steps=4, on_progress=cancelling_after(0), on_preview=lambda preview: None)


def test_memory_that_runs_out_is_told_and_done_with_less(session, monkeypatch):
    whole = session.sample().samples[0].values()
    original = sampling_module.GuidedVelocity

    class Greedy(original):
        def __call__(self, x, time):
            if self.batched and time < 1:  # at a later step
                raise torch.OutOfMemoryError("injected")
            return super().__call__(x, time)

    monkeypatch.setattr(sampling_module, "GuidedVelocity", Greedy)
    result = session.sample()
    assert not result.is_partial
    assert "Memory ran out" in result.warnings[-1]
    assert result.provenances[0]["warnings"] == list(result.warnings)
    assert np.abs(result.samples[0].values() - whole).max() <= 1


def test_memory_that_never_suffices_is_one_sentence(session, monkeypatch):
    tries = []

    def fail(*_args, **_options):
        tries.append(1)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(sampling_module, "decode_tiled", fail)
    with pytest.raises(InputError, match="Memory ran out"):
        session.sample()
    assert len(tries) == 2


def test_numbers_that_are_not_finite_name_the_step(generating_model, tmp_path):
    model = load_model(generating_model, "cpu")
    folder = save_tiny_model(tmp_path / "broken")
    weights = {name: weight.clone() for name, weight in model.generator.state_dict().items()}
    weights["prediction.bias"].fill_(torch.nan)
    save_generator(folder, model.generator.config, weights, {})
    with pytest.raises(InputError, match="step 1"):
        synthesize(request(folder), on_preview=lambda preview: pytest.fail("it was shown"))


def test_a_grid_of_guidances_shows_what_a_sample_would(session):
    grid = session.guidance_grid((0.0, 1.0), (0.0, 1.0, 2.0), steps=2)
    assert grid.slices.shape == (2, 3, 32, 32)
    sample = session.sample(content_weight=1.0, style_weight=2.0, sampler="multistep", steps=2)
    assert np.abs(grid.slices[1, 2] - sample.samples[0].values()[:, :, 16]).max() <= 1


def test_time_grows_with_steps_and_guidance(session):
    little = session.predicted_seconds(content_weight=0.0, style_weight=0.0)
    assert little > 0
    assert session.predicted_seconds(steps=20) == pytest.approx(30 * little)  # three evaluations a step


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": (32, 32, 16)}, "at least the generator's own 32 32 32"),
        ({"start_from": "SMOOTH", "size": (96, 96, 96)}, "choose a smaller size"),
        ({"mask": np.zeros((44, 40, 26), int), "content": "SMOOTH"}, "no ControlNet"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(generating_model, smooth_ct, options, said):
    given = {name: smooth_ct if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(InputError, match=said):
        synthesize(request(generating_model, **given))


def test_a_model_without_a_generator_says_so(tiny_model):
    with pytest.raises(InputError, match="has no generator"):
        synthesize(request(tiny_model))


def test_a_result_that_memory_cannot_hold_is_refused_before(session, monkeypatch):
    from napari_meduet.pipelines.common import memory as memory_module

    monkeypatch.setattr(memory_module, "free_bytes", lambda: 1000)
    with pytest.raises(InputError, match="GiB"):
        synthesize(replace(session.request, content=None, style=None))

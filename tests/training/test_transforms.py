"""`RandStyleAugmentd` in a MONAI pipeline: its random choices, its changes, and what it must not change."""

import pickle

import numpy as np
import pytest
import torch
from monai.data.dataset import Dataset
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import ScaleIntensityRanged
from monai.transforms.utility.dictionary import EnsureChannelFirstd
from tiny import phantom, save_phantom, save_tiny_model

from meduet_training.data.cohort.scans import Scan
from meduet_training.tasks.pretraining.export import known_styles
from meduet_training.transforms import RandStyleAugmentd, style_change
from napari_meduet.core.analysis.style_augmentation import augmented_latent
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model with the styles of three sites, one of them MR."""
    folder = tmp_path_factory.mktemp("models")
    plain = load_model(save_tiny_model(folder / "plain"), "cpu")
    cohort = [
        Scan(
            path=save_phantom(folder / f"{site}.nii.gz", modality, seed, shape=(36, 34, 20)),
            domain=site,
            patient=site,
            modality=modality,
            split="train",
            licence="CC0",
            may_train=True,
        )
        for site, modality, seed in (("site a", "CT", 0), ("site b", "CT", 3), ("site c", "MR", 1))
    ]
    save_model(
        folder / "model",
        plain.card.model_copy(update={"files": {}}),
        plain.tokenizer.state_dict(),
        plain.meduet.state_dict(),
        known_styles(plain, cohort),
    )
    return folder / "model"


def crop(seed=0, shape=(44, 40, 26)):
    return phantom("CT", seed, shape)[None].astype(np.float32)


def augment(model, **changes):
    return RandStyleAugmentd("image", model, **{"prob": 1.0, "strengths": (0.5, 1.0), **changes})


def test_a_crop_of_any_size_gets_another_style_and_its_labels_stay(model):
    values, labels = crop(), crop() > 60
    found = augment(model).set_random_state(0)({"image": values, "label": labels})
    assert found["image"].shape == values.shape
    assert found["image"].dtype == values.dtype
    assert np.abs(found["image"] - values).max() > 1  # HU
    assert found["label"] is labels
    assert np.array_equal(values, crop())  # not in place


@pytest.mark.parametrize("changes", [{"prob": 0.0}, {"strengths": (0.0, 0.0)}])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_without_augmentation_the_crop_does_not_change(model, changes, kind):
    values = crop().astype(kind)
    found = augment(model, **changes)({"image": values})["image"]
    assert found.dtype == kind
    assert np.array_equal(found, values)


def test_at_strength_0_the_decoded_change_is_exactly_0(model):
    opened = load_model(model, "cpu")
    values = opened.profile_for(None, "CT").encode(crop()[0])
    prototype = opened.known_styles["site b"].statistics.mean
    assert not style_change(opened, values, prototype, 0.0).any()
    assert style_change(opened, values, prototype, 0.1).any()


def test_the_change_is_that_of_equation_27(model):
    opened = load_model(model, "cpu")
    values = np.random.default_rng(0).random((32, 32, 32), np.float32)  # one window, so nothing is blended
    prototype = opened.known_styles["site b"].statistics.mean
    with torch.inference_mode():
        own = opened.tokenizer.encode(torch.from_numpy(values)[None, None])[0]
        latent = (own - opened.latents.mean) / opened.latents.std
        moved = augmented_latent(opened.meduet, latent, prototype[None], torch.tensor([0.7]))
        other = moved * opened.latents.std + opened.latents.mean
        expected = (opened.tokenizer.decode(other) - opened.tokenizer.decode(own))[0, 0].numpy()
    np.testing.assert_allclose(style_change(opened, values, prototype, 0.7), expected, atol=1e-6)


def test_values_outside_the_profile_do_not_change(model):
    values = crop()
    values[:, :6], values[:, 6:12] = -1500.0, 2500.0
    found = augment(model).set_random_state(0)({"image": values})["image"]
    assert np.array_equal(found[:, :12], values[:, :12])
    assert not np.array_equal(found, values)


def test_a_seed_gives_the_same_crop_and_another_seed_another(model):
    first, again, other = (
        augment(model).set_random_state(seed)({"image": crop()})["image"] for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_styles_have_the_modality_and_can_be_chosen(model):
    transform = augment(model).set_random_state(0)
    drawn, strengths = set(), []
    for _ in range(40):
        transform.randomize()
        drawn.add(transform._style)
        strengths.append(transform._strength)
    assert drawn == {"site a", "site b"}  # c is MR
    assert 0.5 <= min(strengths) < 0.6
    assert 0.9 < max(strengths) <= 1.0
    assert augment(model, styles=["site b"]).styles == ["site b"]


def test_in_a_pipeline_before_scaling_it_keeps_type_and_metadata(model):
    scan = MetaTensor(torch.from_numpy(crop()[0]), affine=torch.diag(torch.tensor([1.5, 1.5, 1.5, 1.0])))
    pipeline = Compose(
        [
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            augment(model),
            ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
        ]
    ).set_random_state(1)
    plain = Compose([pipeline.transforms[0], pipeline.transforms[2]])({"image": scan})["image"]
    augmented = pipeline({"image": scan})["image"]
    assert isinstance(augmented, MetaTensor)
    assert torch.equal(augmented.affine, scan.affine)
    assert augmented.dtype == torch.float32
    assert not torch.equal(augmented, plain)
    rows = Dataset([{"image": scan}] * 2, pipeline)
    assert not torch.equal(rows[0]["image"], rows[1]["image"])  # new random choices


def test_workers_receive_it_without_its_networks(model):
    transform = augment(model).set_random_state(5)
    sent = pickle.loads(pickle.dumps(transform))  # noqa: S301 - our own, as a DataLoader does
    assert len(pickle.dumps(transform)) < 20_000
    assert np.array_equal(sent({"image": crop()})["image"], transform({"image": crop()})["image"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strengths": (0.8, 0.4)}, "strengths must run from a lower to a higher value"),
        ({"styles": ["site c"]}, "knows no CT style site c; it knows site a, site b"),
        ({"styles": []}, "knows no CT styles to draw from"),
        ({"prob": 1.5}, "prob"),
    ],
)
def test_invalid_arguments_are_refused(model, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        augment(model, **changes)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros((2, 32, 32, 32), np.float32), "Give each sequence a key of its own"),
        (np.zeros((32, 32, 32), np.float32), "a crop is one channel and three axes"),
        (np.full((1, 32, 32, 32), np.nan, np.float32), "not finite"),
    ],
)
def test_an_invalid_crop_is_reported_with_its_key(model, values, sentence):
    with pytest.raises((ValueError, RuntimeError), match=f"image.*{sentence}"):
        augment(model)({"image": values})


def test_mr_without_contrast_does_not_change(model):
    blank = np.zeros((1, 32, 32, 32), np.float32)
    assert np.array_equal(augment(model, modality="MR")({"image": blank})["image"], blank)

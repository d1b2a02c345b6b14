"""A tiny model and small scans, made once."""

from pathlib import Path

import pytest
from tiny import save_phantom, save_tiny_classifier, save_tiny_generator, save_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def generating_model(tmp_path_factory) -> Path:
    return save_tiny_generator(save_tiny_model(tmp_path_factory.mktemp("models") / "generating"))


@pytest.fixture(scope="session")
def classifying_model(tmp_path_factory) -> Path:
    return save_tiny_classifier(save_tiny_model(tmp_path_factory.mktemp("models") / "classifying"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=1, name="other")


@pytest.fixture(scope="session")
def smooth_ct(tmp_path_factory) -> Path:
    return save_phantom(tmp_path_factory.mktemp("scans") / "smooth.nii.gz", "CT", seed=0)


@pytest.fixture(scope="session")
def noisy_ct(tmp_path_factory) -> Path:
    return save_phantom(tmp_path_factory.mktemp("scans") / "noisy.nii.gz", "CT", seed=3)


@pytest.fixture(scope="session")
def mr(tmp_path_factory) -> Path:
    return save_phantom(tmp_path_factory.mktemp("scans") / "brain.nii.gz", "MR", seed=0)

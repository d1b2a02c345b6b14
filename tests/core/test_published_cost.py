import importlib.util
from pathlib import Path

import pytest

from napari_meduet.core.meduet import MeDUETConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "published_cost.py"


@pytest.fixture(scope="module")
def cost():
    spec = importlib.util.spec_from_file_location("published_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_published_network_counts_what_the_paper_prints(cost):
    published = cost.published()
    assert published.parameters / 1e6 == pytest.approx(105.15, abs=0.005)
    assert published.weight_operations / 1e9 == pytest.approx(50.10, abs=0.005)
    assert (published.weight_operations + published.attention_operations) / 1e9 == pytest.approx(
        53.0, abs=0.05
    )


def test_ours_differs_from_the_published_network_by_what_the_script_says(cost):
    published, base = cost.published(), cost.ours(MeDUETConfig.base())
    unused_embedding, cls_token, constant, convolution = -49_920, -768, 384, 192 * (27 - 3)
    assert base.parameters - published.parameters == unused_embedding + cls_token + constant + convolution
    assert base.weight_operations == pytest.approx(published.weight_operations, rel=0.01)


def test_small_and_its_tokenizer_fit_the_embedded_model_in_half_precision(cost):
    assert 2 * cost.ours(MeDUETConfig.small()).parameters < 40e6

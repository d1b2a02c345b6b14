"""A volume asked for in fewer bits: near the one in 32, and its record says so."""

import numpy as np
import pytest

from napari_meduet.core import quantisation
from napari_meduet.errors import InputError
from napari_meduet.pipelines import SynthesisRequest, open_synthesis, synthesize


def asked(model, precision: str, **changes) -> SynthesisRequest:
    return SynthesisRequest(
        model=model, precision=precision, sampler="euler", steps=2, seed=1, **{"device": "cpu"} | changes
    )


@pytest.mark.skipif(not quantisation.multiplies_exactly(), reason="this processor's 8-bit products overflow")
def test_int8_is_near_float32_and_recorded(generating_model):
    exact, rounded = (synthesize(asked(generating_model, precision)) for precision in ("float32", "int8"))
    expected, found = (result.samples[0].voxels.astype(float) for result in (exact, rounded))
    assert 0 < np.abs(found - expected).mean() < 0.1 * expected.std()
    assert rounded.provenances[0]["parameters"]["precision"] == "int8"


def test_int8_is_refused_where_products_overflow(generating_model, monkeypatch):
    monkeypatch.setattr(quantisation, "multiplies_exactly", lambda: False)
    with pytest.raises(InputError, match="Choose precision float32"):
        open_synthesis(asked(generating_model, "int8"))


def test_a_precision_nobody_knows_is_refused():
    with pytest.raises(InputError, match="precision must be one of float32, bfloat16, int8; got 'int4'"):
        asked(None, "int4")

"""Each row of the fault list once; `make soak` repeats them."""

from random import Random

import pytest
from fault_rows import ROWS


@pytest.mark.parametrize("row", ROWS)
def test_row(tmp_path, row):
    ROWS[row](tmp_path / row, Random(0))  # noqa: S311

"""What every test may ask for."""

import os
from pathlib import Path

import pytest

BESIDE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real scans: in MEDUET_DATA, or beside this checkout; where absent, the test is skipped and says so."""
    folder = Path(os.environ.get("MEDUET_DATA", BESIDE_CHECKOUT))
    if not (folder / "index.json").is_file():
        pytest.skip("the real scans are not on this machine (MEDUET_DATA, or ../shared/data beside the checkout)")
    return folder

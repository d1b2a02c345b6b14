"""What every test may ask for."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside this checkout; where it is absent the test says so and is skipped."""
    if not (SHARED_DATA / "index.json").is_file():
        pytest.skip("the real scans of ../shared/data are not on this machine")
    return SHARED_DATA

"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is slow, not wrong.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

BESIDE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real scans, in MEDUET_DATA or beside this checkout; without them the test says so, skipped."""
    folder = Path(os.environ.get("MEDUET_DATA", BESIDE_CHECKOUT))
    if not (folder / "index.json").is_file():
        pytest.skip(
            "the real scans are not on this machine (MEDUET_DATA, or ../shared/data beside the checkout)"
        )
    return folder

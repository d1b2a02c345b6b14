import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("closing.py")


@pytest.mark.parametrize("what", ["window", "dock"])
def test_closing_in_the_middle_of_a_job_stops_it_and_leaves_no_trace(what):
    process = subprocess.run([sys.executable, SCRIPT, what], capture_output=True, text=True, timeout=90)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    assert "deleted" not in process.stderr, process.stderr
    closed_at = float(process.stdout.splitlines()[0])
    assert time.time() - closed_at < 5

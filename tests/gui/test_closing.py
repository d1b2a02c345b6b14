import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("closing.py")


@pytest.mark.parametrize("arguments", ["window swap", "dock swap", "window teach", "dock teach"])
def test_closing_in_the_middle_of_a_job_stops_it_and_leaves_no_trace(arguments):
    process = subprocess.run(
        [sys.executable, SCRIPT, *arguments.split()], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr, process.stderr
    assert "deleted" not in process.stderr, process.stderr
    # The job never ends by itself, so the end of the process shows that it was stopped. The limit is CPU
    # time, because a busy machine stretches wall time.
    assert float(process.stdout.splitlines()[-1]) < 5

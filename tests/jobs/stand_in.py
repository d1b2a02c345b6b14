"""A stand-in for a pretraining, with which the jobs are tested: `stand_in.py FOLDER STEPS [SECONDS]`.

It does only what the jobs need. It writes a checkpoint and a row of metrics after each step. SIGTERM and
SIGUSR1 save and exit with code 75, and the same command continues. Each rank prints its number.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

folder, steps = Path(sys.argv[1]), int(sys.argv[2])
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.1
rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
stopped = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: stopped.append(number))


def is_held(done: int) -> bool:
    """Return whether `hold: N` is in the configuration, N steps are done, and there is no file `go`."""
    held = re.search(r"^hold: (\d+)$", (folder / "config.yaml").read_text(), flags=re.MULTILINE)
    return bool(held) and done == int(held[1]) and not (folder / "go").exists()


checkpoints = folder / "checkpoints"
checkpoints.mkdir(exist_ok=True)
done = max((int(path.stem.split("-")[1]) for path in checkpoints.glob("step-*.safetensors")), default=0)
print(f"rank {rank} begins at step {done}", flush=True)
while done < steps:
    end = time.monotonic() + seconds
    while (time.monotonic() < end or is_held(done)) and not stopped:
        time.sleep(0.05)
    if stopped:
        break
    done += 1
    if rank == 0:
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": done - 1, "total": 1.0 / done}) + "\n")
        (checkpoints / f"step-{done:08d}.safetensors").touch()
        print(f"step {done}", flush=True)
if done < steps:
    sys.exit(75)
if (folder / "fail").exists():
    sys.exit("Something went wrong.")

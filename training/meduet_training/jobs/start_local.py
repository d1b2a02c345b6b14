"""`python -m meduet_training.jobs.start_local FOLDER COMMAND [GPU ...]`: start a local job, and end.

submitit's local executor starts a supervisor process, which inherits the streams and the session of its
parent. executors.py therefore calls this program as a process with its own streams and session, so that the
supervisor outlives the login.
"""

import sys
from pathlib import Path

TEN_YEARS_MIN = 10 * 365 * 24 * 60.0  # submitit needs a limit in minutes; a plain machine has none


def main(folder: str, command: str, *gpus: str) -> None:
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=folder)
    executor.update_parameters(
        gpus_per_node=len(gpus),
        visible_gpus=[int(gpu) for gpu in gpus],
        timeout_min=TEN_YEARS_MIN,
        stderr_to_stdout=True,
    )
    job = executor._submit_command(command)
    (Path(folder) / "id").write_text(job.job_id)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`python -m meduet_training.jobs.start_local FOLDER COMMAND [GPU ...]`: start a job's supervisor and leave.

submitit's local executor lends its streams and its session to the supervisor, so it is called from a process
that has none worth lending.
"""

import sys
from pathlib import Path

FOR_EVER = 10 * 365 * 24 * 60.0  # minutes; a plain machine has no time limit


def main(folder: str, command: str, *gpus: str) -> None:
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=folder)
    executor.update_parameters(
        gpus_per_node=len(gpus), visible_gpus=[int(gpu) for gpu in gpus], timeout_min=FOR_EVER,
        stderr_to_stdout=True,
    )  # fmt: skip
    job = executor._submit_command(command)
    (Path(folder) / "id").write_text(job.job_id)


if __name__ == "__main__":
    main(*sys.argv[1:])

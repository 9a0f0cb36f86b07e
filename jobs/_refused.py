"""Ends a Ray job whose command was refused before any work as STOPPED, which nobody repeats; see rayjob.yaml.

    python -m jobs.pipeline ... || python -m jobs._refused $?

KubeRay begins a job that FAILED again, on a new cluster, and knows no exit status. One that was STOPPED it leaves.
"""

from __future__ import annotations

import json
import os
import sys
import time

#: The exit status of a command that was refused, and seconds in which Ray ends a job that is to stop.
REFUSED, _GRACE = 2, 60


def main(status: int) -> int:
    """Have this job stopped if `status` says that its command was refused; the status that it has otherwise."""
    if status == REFUSED:
        from ray.job_submission import JobSubmissionClient

        about = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]
        JobSubmissionClient().stop_job(about["job_submission_id"])
        time.sleep(_GRACE)  # this process is part of the job
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

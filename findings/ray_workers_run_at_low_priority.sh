#!/usr/bin/env bash
# Ray 2.60.0: every worker runs at niceness 15, so that beside other work it gets about a thirtieth of a core.
#
# Version:    ray 2.60.0, CPython 3.11, Linux x86-64.
# Input:      a task and an actor, started from a driver of niceness 0, on a local cluster with nothing set.
# Expected:   the driver's niceness, as any child process has it.
# Seen:       15 in both. With RAY_worker_niceness=0 in the environment of whoever starts Ray: 0.
# It matters: on a workstation, a shared node or a CI machine with one other busy process per core, a job that takes
#             minutes on an idle machine takes hours and seems to hang: num_cpus says what is reserved, not what is got.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cat >"$folder/niceness.py" <<'PYTHON'
import os

import ray

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote
def task():
    return os.nice(0)


@ray.remote
class Actor:
    def niceness(self):
        return os.nice(0)


print(os.nice(0), ray.get(task.remote()), ray.get(Actor.remote().niceness.remote()))
PYTHON
export HOME="$folder" RAY_USAGE_STATS_ENABLED=0
unset RAY_worker_niceness
here=$(nice)
default=$("$folder/venv/bin/python" "$folder/niceness.py" 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; })
set_to_0=$(RAY_worker_niceness=0 "$folder/venv/bin/python" "$folder/niceness.py" 2>"$folder/log")
echo "niceness of driver, task, actor: $default by default, $set_to_0 with RAY_worker_niceness=0"
[ "$default" = "$here $((here + 15)) $((here + 15))" ] || { echo "changed: expected 15 more than the driver's"; exit 1; }
[ "$set_to_0" = "$here $here $here" ] || { echo "changed: expected the driver's with RAY_worker_niceness=0"; exit 1; }

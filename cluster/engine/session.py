"""Joining or starting Ray, without disturbing anybody else's."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from cluster.config import ClusterConfig
from cluster.engine.ending import watched

#: Workers must import this project whatever folder they start in, and use no accelerator that nobody asked for.
ROOT = Path(__file__).resolve().parents[2]

#: What every process of a job gets; cluster/deploy says the same to jobs that are submitted. Torch's large pages save
#: the CPU a sixth of MobileNetV2's time, which went into faulting activations in, 4 KiB by 4 KiB.
VARIABLES = {"WDS_SECURE": "1", "RAY_TRAIN_V2_ENABLED": "1", "THP_MEM_ALLOC_ENABLE": "1"}

#: Besides, on one machine: nobody announces there that a node will be taken away, and the watcher costs a process.
LOCAL = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


@contextlib.contextmanager
def session(config: ClusterConfig) -> Iterator[None]:
    """Connect to `config.address`, to the cluster that runs this job, or to a fresh Ray on this machine.

    Inside a submitted job RAY_ADDRESS (set by Ray) names the cluster. Otherwise a local one is started and ended; an
    unrelated cluster that happens to run on this machine is never joined.
    """
    if ray.is_initialized():
        yield
        return
    chosen = config.joined()
    variables = VARIABLES | {"PYTHONPATH": _python_path()}
    variables |= {key: os.environ[key] for key in ("FSS_FAILPOINT",) if key in os.environ}
    environment: dict[str, Any] = {"env_vars": variables}
    if chosen == "local":
        environment = {
            "env_vars": variables | LOCAL,
            "worker_process_setup_hook": "cluster.engine.setup_hook.name_own_ray",
        }
    inside_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    with _own_sigterm():
        ray.init(
            address=chosen,
            log_to_driver=True,
            logging_level=logging.WARNING,
            include_dashboard=True if chosen == "local" else None,  # Ray Train asks it which actors are alive
            runtime_env=None if inside_job else environment,
        )
    try:
        with watched():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does at SIGTERM: Ray would write a stack of C++, and abort three seconds later."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _python_path() -> str:
    return os.pathsep.join(
        dict.fromkeys([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    )

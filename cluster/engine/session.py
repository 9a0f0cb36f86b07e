"""Joining or starting Ray, without disturbing anybody else's."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from cluster.config import ClusterConfig
from cluster.engine.ending import ends, watched

#: Workers must import this project whatever folder they start in, and use no accelerator that nobody asked for.
ROOT = Path(__file__).resolve().parents[2]

#: What every process of a job gets; cluster/deploy says the same to jobs that are submitted. Torch's large pages save
#: the CPU a sixth of MobileNetV2's time, which went into faulting activations in, 4 KiB by 4 KiB. Sums are computed on
#: one thread (`fss.threads`), but in training, which says on how many.
VARIABLES = {
    "WDS_SECURE": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
    "OMP_NUM_THREADS": "1",
}

#: Besides, on one machine: nobody announces there that a node will be taken away, and the watcher costs a process.
LOCAL = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}

#: Seconds in which a cluster that is to be joined opens its door.
_KNOCK = 10.0
#: Who says at every start that a Ray of one's own asks for a token, as it should.
_ADVISES = "ray._private.authentication.authentication_token_setup"
#: Ray's C++ function `InstallFailureSignalHandler`, whose first call counts alone. Ray calls it before it waits for its
#: daemons: called earlier, it leaves the handlers that are put after it.
_HANDLE = "_ZN3ray6RayLog27InstallFailureSignalHandlerEPKcb"
_starting = threading.Event()


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
    _start(chosen, None if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else environment)
    try:
        with watched(ray.get_runtime_context().get_node_id()):
            yield
    finally:
        if not ends():  # then what Ray has started is killed at once
            with _own_sigterm():
                ray.shutdown()


def _start(address: str, environment: dict[str, Any] | None) -> None:
    """`ray.init`.

    Raises:
        ValueError: if Ray does not start here, or does not answer there.
    """
    if address != "local":
        _knock(address)
    logging.getLogger(_ADVISES).setLevel(logging.ERROR)
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of units that others do meanwhile; it prints a stack
    try:
        with _own_sigterm(), _apart():
            ray.init(
                address=address,
                log_to_driver=True,
                logging_level=logging.WARNING,
                include_dashboard=True if address == "local" else None,  # Ray Train asks it which actors are alive
                runtime_env=environment,
            )
    except Exception as error:  # Ray raises bare ones too
        if isinstance(error, OSError) and error.errno:  # a full disk and the like speak for themselves
            raise
        raise ValueError(_not_there(address, error)) from error


def _not_there(address: str, error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if address == "local":
        return (
            f"Ray did not start on this machine in time ({said}); mostly the machine is too busy: run the same command "
            "again when it has less to do, or set cluster.address=HOST:PORT to join a Ray that runs"
        )
    return f"cluster.address or RAY_ADDRESS: expected a Ray at {address}, got: {said}; correct it, or start it"


def _knock(address: str) -> None:
    """Try a HOST:PORT before Ray does, which would complain for minutes that nobody is there.

    Raises:
        ValueError: if nobody answers.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():  # `auto`, or the name of another service
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK).close()
    except OSError as error:
        raise ValueError(_not_there(address, error)) from error


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Give Ray's daemons, which are started here, a session of their own.

    A signal to the group of this command, as a terminal sends, would end them first, and Ray's library this process
    then. The kernel still kills them when this process dies, however that is.
    """
    _hook_forks()
    _starting.set()
    try:
        yield
    finally:
        _starting.clear()


@functools.cache
def _hook_forks() -> None:
    os.register_at_fork(after_in_child=lambda: os.setsid() if _starting.is_set() else None)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does at SIGTERM, while Ray's library comes or goes and afterwards.

    It would write a stack of C++ and abort; once it has gone, the process would die without a word.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.suppress(AttributeError):  # of another version of Ray: then there is a moment with its handlers
        getattr(ctypes.CDLL(ray._raylet.__file__), _HANDLE)(None, False)
    signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _python_path() -> str:
    return os.pathsep.join(
        dict.fromkeys([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    )

"""The entry point that all jobs share: help, the configuration, the work, and how each of them ends."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from cluster.config import help as helping
from cluster.config.compose import CONF, load, load_keys
from cluster.config.help import Command
from cluster.engine.refused import RefusedError
from cluster.tracking import redact
from jobs._stop import Stop

__all__ = ["CONF", "Command", "load", "load_keys", "run"]

#: What the machine refuses, and what a user does about it.
_REFUSED = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the quota of the disk is used up; make room",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "this user may not; change the permissions, or choose another place",
    errno.EPERM: "this user may not; change the permissions, or choose another place",
}

#: How Ray shows the lines of its workers, read when it is imported: as they were printed, fit for a file. Those of a
#: submitted job keep their prefix, which tells the machine.
_PLAIN = {"RAY_COLOR_PREFIX": "0", "RAY_DISABLE_WORKER_LOG_PREFIX": "1"}


def run(command: Command, work: Callable[[Any], Any]) -> None:
    """Do a command's work as its arguments say, or print the help that they ask for.

    Exit status 2 and one message for what is refused before any work: wrong arguments, and what cannot work with them.
    1 for what else users can mend, 130 and 143 after Ctrl-C and SIGTERM.
    """
    redact.install()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files hold what a terminal, or no text at all, can show
        sys.stdout.reconfigure(errors="backslashreplace")
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        for variable, value in _PLAIN.items():
            os.environ.setdefault(variable, value)
    logging.basicConfig(level=os.environ.get("FSS_LOG", "INFO"), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells that it looks for fonts
    arguments = sys.argv[1:]
    with Stop() as stop:
        try:
            if helping.asked(arguments):
                _print(helping.answer(command, arguments))
                return
            config = command.load(arguments)
        except ValueError as error:
            sys.exit(_say(str(error), 2))
        stop.kept = command.kept.format_map(vars(config))
        try:
            work(config)
        except OSError as error:
            sys.exit(_say(_refusal(error), 1))
        except ValueError as error:
            sys.exit(_say(str(error), 2 if isinstance(error, RefusedError) else 1))
        except Exception as error:
            if not _is_rays_end(error):
                raise
            sys.exit(_say(f"Ray came to an end ({_first_line(error)}): {stop.kept}", 1))


def _is_rays_end(error: Exception) -> bool:
    """Whether Ray's own processes failed: of its errors only RayTaskError carries a fault of ours."""
    kinds = {one.__name__ for one in type(error).__mro__ if one.__module__ == "ray.exceptions"}
    return bool(kinds) and "RayTaskError" not in kinds


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _say(text: str, status: int) -> int:
    logging.getLogger("jobs").debug("details", exc_info=True)
    print(redact.redact(f"error: {text}"), file=sys.stderr, flush=True)
    return status


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # who reads it, such as `head`, has seen enough; nothing is to be flushed there at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refusal(error: OSError) -> str:
    remedy = _REFUSED.get(error.errno or 0)
    again = f": {remedy} and run the same command again, it goes on from what is finished"
    return f"{error}{again if remedy else ''}"

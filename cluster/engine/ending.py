"""The end of a command that something from outside brings about: one line, then silence, and no process left.

What a job that is ended would still print (errors of what was cut off, stacks of C++) is no news after the line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import NoReturn

import psutil

#: Ray's daemons on one machine, the loss of either of which Ray's library answers with pages of its own and an exit.
_DAEMONS = ("raylet", "gcs_server")
#: Seconds between two looks at them; and how long a signal, which may end them too, has to be told first.
_EVERY, _SIGNALS_FIRST = 0.3, 0.5

_said = threading.Lock()
_family: list[psutil.Process] = []


def announce(line: str) -> bool:
    """Say why the command ends; False, and nothing is said, if something else has said it already."""
    if not _said.acquire(blocking=False):
        return False
    logging.disable()
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    _family.extend(psutil.Process().children(recursive=True))
    return True


def end(status: int) -> NoReturn:
    """End without what libraries do at exit, for one that was cut off may hang or abort there; all children too."""
    for one in _family:
        with contextlib.suppress(psutil.Error):
            one.kill()
    os._exit(status)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """End the command with one line and status 1 if a daemon of the Ray that it has started dies in this block."""
    over = threading.Event()
    daemons = {child.name(): child for child in psutil.Process().children() if child.name() in _DAEMONS}
    thread = threading.Thread(target=_watch, args=(daemons, over), name="ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(daemons: Mapping[str, psutil.Process], over: threading.Event) -> None:
    while not over.wait(_EVERY):
        lost = next((name for name, one in daemons.items() if not _lives(one)), None)
        if lost is None:
            continue
        if over.wait(_SIGNALS_FIRST):
            return
        told = "mostly of too little memory: what is finished is kept; the same command goes on from there"
        if announce(f"error: Ray's {lost} died, {told}"):
            end(1)
        return


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

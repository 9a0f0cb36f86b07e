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

from fss.meanwhile import meanwhile

#: Ray's daemons on one machine. Ray's library answers the loss of either with pages of its own, an exit, or silence.
_DAEMONS = ("raylet", "gcs_server")
#: Seconds between two looks at them, for Ray's library may exit first, in silence; and how long a signal, which may end
#: them too, has to be told first.
_EVERY, _SIGNALS_FIRST = 0.03, 0.1
#: Seconds that what was printed before the line may take: whoever is stopped in the middle of a print holds the stream.
_PRINTED = 1.0

_said = threading.Lock()
_family: list[psutil.Process] = []


def announce(line: str) -> bool:
    """Say why the command ends; False, and nothing is said, if something else has said it already."""
    if not _said.acquire(blocking=False):
        return False
    logging.disable()
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(_PRINTED)
    told = os.dup(sys.stderr.fileno())
    for stream in (sys.stdout, sys.stderr):  # before the line, so that it is the last one
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    os.write(told, f"{line}\n".encode())
    _family.extend(psutil.Process().children(recursive=True))
    return True


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def ends() -> bool:
    """Whether it was said why the command ends: what would only close processes need not be done any more."""
    return _said.locked()


def end(status: int) -> NoReturn:
    """End without what libraries do at exit, for one that was cut off may hang or abort there; all children too."""
    with contextlib.suppress(psutil.Error):
        _family.extend(psutil.Process().children(recursive=True))
    for one in _family:
        with contextlib.suppress(psutil.Error):
            one.kill()
    os._exit(status)


@contextlib.contextmanager
def watched(node: str) -> Iterator[None]:
    """End the command with one line and status 1 if a daemon of the Ray node `node`, of this machine, dies meanwhile.

    `node` is the node's id, whoever has started it; its daemons have that among their arguments.
    """
    with meanwhile("ray-watch", _watch, _daemons(node)):
        yield


def _daemons(node: str) -> dict[str, psutil.Process]:
    said = {f"--node_id={node}", f"--node-id={node}"}
    listed = psutil.process_iter(["name", "cmdline"])
    here = [one for one in listed if one.info["name"] in _DAEMONS and said & {*(one.info["cmdline"] or ())}]
    return {one.info["name"]: one for one in here}


def _watch(over: threading.Event, daemons: Mapping[str, psutil.Process]) -> None:
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

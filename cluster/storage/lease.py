"""A lock in a bucket: an object that its holder writes anew as long as it lives, so that whoever does not is dead."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from cluster.storage import bucket
from fss.meanwhile import meanwhile

logger = logging.getLogger(__name__)

#: Seconds between two signs of life, and without one after which the holder counts as dead. No clock of one machine is
#: compared with another's: who waits for the lock sees whether it changes.
EVERY, DEAD = 5.0, 30.0
_LOOK = 0.5


class HeldError(Exception):
    """Somebody else who lives holds it."""


@contextlib.contextmanager
def held(name: str, mine: Path) -> Iterator[None]:
    """Hold the lock that is the object `name`.

    Args:
        name: BUCKET/KEY.
        mine: a file of this machine that its caller has locked: it names the last holder from here, who is dead then.

    Raises:
        HeldError: if the holder gives a sign of life within `DEAD` seconds.
    """
    holder = uuid.uuid4().hex
    tag = _taken(name, holder, mine.read_text())
    mine.write_text(holder)
    try:
        with meanwhile("lease", _renew, name, holder, tag):
            yield
    finally:
        _give_back(name, holder)


def _taken(name: str, holder: str, before: str) -> str:
    """The tag of the lock, once it is ours."""
    there = bucket.get_tagged(name)
    if there is not None and _holder(there[0]) != before:
        there = _silent(name, there)
    tag = bucket.put_if(name, _word(holder, 0), None if there is None else there[1])
    if tag is None:  # another was quicker
        raise HeldError
    return tag


def _silent(name: str, there: tuple[bytes, str]) -> tuple[bytes, str] | None:
    """The lock as its holder has left it for so long that he must be dead; None if he gave it back meanwhile."""
    end = time.monotonic() + DEAD
    logger.info("%s%s is the lock of another run; waiting %g s for a sign of its life", bucket.SCHEME, name, DEAD)
    while time.monotonic() < end:
        time.sleep(_LOOK)
        now = bucket.get_tagged(name)
        if now is None:
            return None
        if now[1] != there[1]:
            raise HeldError
    return there


def _renew(over: threading.Event, name: str, holder: str, tag: str) -> None:
    number = 0
    while not over.wait(EVERY):
        number += 1
        try:
            renewed = bucket.put_if(name, _word(holder, number), tag)
        except Exception as error:  # the store is away: later
            logger.debug("%s: no sign of life went through: %s", name, error)
            continue
        if renewed is None:
            logger.warning(
                "%s%s was taken over by another run, for this one was silent for long; both publish the same bytes",
                bucket.SCHEME, name,
            )  # fmt: skip
            return
        tag = renewed


def _give_back(name: str, holder: str) -> None:
    """Remove the lock if it is still ours. If the store is away, its silence will do."""
    with contextlib.suppress(Exception):
        there = bucket.get_tagged(name)
        if there is not None and _holder(there[0]) == holder:
            bucket.remove([name])


def _word(holder: str, number: int) -> bytes:
    return json.dumps({"holder": holder, "sign": number}).encode()


def _holder(data: bytes) -> str:
    return str(json.loads(data)["holder"])

"""Which of a worker's units computes: the one that has the turn.

A worker has two units in flight. Before its turn a unit has what it reads copied from the bucket; after it, what it
made is published. So the store takes its time while another unit computes, and no two compute at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

#: Units that a worker is given at a time.
UNITS = 2
_turn = threading.Lock()
_own = threading.local()


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """Wait for the turn, and have it until `over`, or to the end."""
    _turn.acquire()
    _own.turn = True
    try:
        yield
    finally:
        over()


def over() -> None:
    """Let the next unit compute: this one computes no more."""
    if getattr(_own, "turn", False):
        _own.turn = False
        _turn.release()

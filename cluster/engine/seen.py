"""Whether all machines see the folder that a run writes to: the driver leaves a word there, and they read it."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.engine import publish
from cluster.storage import bucket, paths

#: Seconds after which a file that is not seen will not be: a network file system may remember for long what it lacked.
_LATE = 10.0


@dataclass(frozen=True)
class Mark:
    """A file that a process on the machine `host` wrote."""

    path: Path
    word: str
    host: str
    patience: float = _LATE

    def problem(self) -> str | None:
        """What is wrong on the machine that asks, if it does not see the file."""
        end = time.monotonic() + self.patience
        while not self._seen():
            if time.monotonic() > end:
                remedy = "mount shared storage there on both, or set root="
                if paths.stored(self.path):
                    remedy = "give it the store's address and login too (AWS_...)"
                return (
                    f"root: expected a folder that all machines see, {socket.gethostname()} does not see what "
                    f"{self.host} wrote to {bucket.address(self.path.parent)}; {remedy}"
                )
            time.sleep(0.2)
        return None

    def _seen(self) -> bool:
        with contextlib.suppress(OSError):
            return paths.read_bytes(self.path) == self.word.encode()
        return False


@contextlib.contextmanager
def left(folder: Path) -> Iterator[Mark]:
    """A mark in `folder`, which is made if need be, as long as the block lasts."""
    word = uuid.uuid4().hex
    mark = Mark(folder / f".seen-{word[:8]}", word, socket.gethostname())
    publish.write_bytes(mark.path, word.encode())
    try:
        yield mark
    finally:
        paths.remove(mark.path)

"""Ctrl-C and SIGTERM: one plain line at once, then the job ends with status 130 or 143."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import TracebackType
from typing import NoReturn

from cluster.engine.ending import announce, end

#: Seconds in which a stopped job may close what it holds (workers, journals, Ray) before it is ended all the same.
_GRACE = 4.0
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stop:
    """A context manager around a job's work.

    Python writes the number of each signal into a file descriptor the moment it comes, whoever handles it: Ray puts
    handlers of its own in place of ours, and the main thread may be deep in foreign code. A thread waits there.
    """

    def __init__(self) -> None:
        self.kept = "nothing was begun"
        """What becomes of the work so far; the job sets it when it knows its configuration."""
        self._signal: int | None = None
        self._thread = threading.Thread(target=self._listen, name="stop", daemon=True)

    def __enter__(self) -> Stop:
        self._source, self._sink = os.pipe()
        os.set_blocking(self._sink, False)
        signal.set_wakeup_fd(self._sink, warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGTERM, _terminate)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        signal.set_wakeup_fd(-1)
        os.write(self._sink, b"\0")
        self._thread.join()
        if self._signal is not None and kind is not None:
            end(128 + self._signal)
        signal.signal(signal.SIGTERM, self._before)
        os.close(self._source)
        os.close(self._sink)

    def _listen(self) -> None:
        while number := os.read(self._source, 1)[0]:
            if number not in _NAMES:
                continue
            if self._signal is not None:
                end(128 + number)
            self._signal = number
            announce(f"stopped by {_NAMES[signal.Signals(number)]}: {self.kept}")
            last = threading.Timer(_GRACE, end, [128 + number])
            last.daemon = True
            last.start()


def _terminate(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)

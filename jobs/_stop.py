"""Ctrl-C and SIGTERM: one plain line at once, then the job ends with status 130 or 143."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import TracebackType
from typing import NoReturn

#: Seconds in which a stopped job may close what it holds (workers, journals, Ray) before it is ended all the same; the
#: kernel ends a local Ray with it.
_GRACE = 4.0
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stop:
    """A context manager around a job's work.

    Python writes the number of each signal into a file descriptor the moment it comes, whoever handles it: Ray puts
    handlers of its own in place of ours, and the main thread may be deep in foreign code. A thread waits there. What
    the ending job would still print (errors of what was cut off, stacks of C++) is no news after the line.
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
            _end(self._signal)
        signal.signal(signal.SIGTERM, self._before)
        os.close(self._source)
        os.close(self._sink)

    def _listen(self) -> None:
        while number := os.read(self._source, 1)[0]:
            if number not in _NAMES:
                continue
            if self._signal is not None:
                _end(number)
            self._signal = number
            print(f"stopped by {_NAMES[signal.Signals(number)]}: {self.kept}", file=sys.stderr, flush=True)
            logging.disable()
            sys.stdout.flush()
            for stream in (sys.stdout, sys.stderr):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            last = threading.Timer(_GRACE, _end, [number])
            last.daemon = True
            last.start()


def _terminate(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _end(number: int) -> NoReturn:
    """End without what libraries do at exit: one that was cut off may hang or abort there."""
    sys.stdout.flush()
    os._exit(128 + number)

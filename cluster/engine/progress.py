"""Progress of a stage: one updating line on a terminal, plain lines in the log of a job, and one line at its end."""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from cluster.engine import meters
from cluster.tracking.journal import Journal

_A_MINUTE = 60
#: By which share of the time so far the next line of a log is put off.
_GROWTH = 0.1
#: Counts of what went in and did not come out.
_LEFT_OUT = ("rejected", "duplicate")


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds as on a clock.

    >>> format_duration(42), format_duration(3723), format_duration(200_000)
    ('0:42', '1:02:03', '2d 7:33:20')
    """
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours or days else f"{minutes}:{rest:02d}"
    return f"{days}d {clock}" if days else clock


def format_rate(count: float, seconds: float, unit: str) -> str:
    """Throughput with three significant digits; ``-`` before anything is known.

    >>> format_rate(3100, 10, "images"), format_rate(7, 2, "images"), format_rate(5_000_000, 1, "pixels")
    ('310 images/s', '3.5 images/s', '5M pixels/s')
    """
    if seconds <= 0 or count <= 0:
        return f"- {unit}/s"
    return f"{short_number(count / seconds)} {unit}/s"


def short_number(value: float) -> str:
    """Three significant digits, with k, M, G, T for the thousands.

    >>> short_number(0.0123), short_number(310), short_number(999_999), short_number(1_234_567)
    ('0.0123', '310', '1M', '1.23M')
    """
    for suffix in ("", "k", "M", "G"):
        if abs(float(f"{value:.3g}")) < 1000:
            return f"{value:.3g}{suffix}"
        value /= 1000
    return f"{value:.3g}T"


def remaining(done: int, total: int, seconds: float) -> float | None:
    """Seconds to go if the rest runs like the `done` parts of `seconds`; None before anything is known."""
    return seconds * (total - done) / done if done > 0 else None


def ended(stage: str, counts: Mapping[str, int], unit: str, seconds: float) -> str:
    """What a stage did, in one line; `unit` is which of its counts is told, and what was left out is told too.

    >>> ended("label", {"images": 30, "layers": 90}, "images", 6)
    'label  30 images in 6.0 s  5 images/s'
    >>> ended("shard", {"accepted": 28, "duplicate": 2, "rejected": 0}, "accepted", 60)
    'shard  28 accepted in 1:00  0.467 accepted/s  duplicate 2'
    """
    took = f"{seconds:.1f} s" if seconds < _A_MINUTE else format_duration(seconds)
    left_out = [f"{name} {counts[name]}" for name in _LEFT_OUT if counts.get(name)]
    number = counts.get(unit, 0)
    told = [f"{number} {unit} in {took}", format_rate(number, seconds, unit)] if number else [took]
    return "  ".join([stage, *told, *left_out])


class Progress:
    """Counts parts (shards) of a stage and the items (images) in them, and tells the reader of the log.

        with Progress("label", total=40) as progress:
            progress.update(items=1000, failed=2)

    prints ``label  12/40 shards  310 images/s  ETA 0:42  failed 2``, in a log ever more rarely. The end of a stage is
    told by `ended`; a line stays where parts failed or something stopped them. `done` parts were there before: they
    count as done, not as speed. With a `journal` the same numbers become metrics ``<stage>/...`` at step = parts done;
    under Ray, Prometheus reads them too (`cluster.engine.meters`).
    One thread updates it.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        unit: str = "images",
        *,
        parts: str = "shards",
        done: int = 0,
        every: float = 5.0,
        journal: Journal | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stage, self.total, self.unit, self.parts = stage, total, unit, parts
        self.done, self.items, self.failed = done, 0, 0
        self._before = done
        self._journal, self._stream, self._clock = journal, stream or sys.stdout, clock
        self._terminal = self._stream.isatty()
        self._every = min(every, 0.2) if self._terminal else every
        self._begin = self._printed = self._logged = clock()
        self._log_every = every
        self._width = 0
        self._closed = False

    def update(self, parts: int = 1, items: int = 0, failed: int = 0) -> None:
        """Count `parts` more as done, with `items` good and `failed` bad ones; print if it is time."""
        self.done += parts
        self.items += items
        self.failed += failed
        meters.done(self.stage, self.unit, items, failed)
        meters.left(self.stage, self.total - self.done)
        now = self._clock()
        if self.done < self.total and now - self._printed >= self._pause(now):
            self._printed = now
            self._print(self.line(), last=False)
        if self._journal and now - self._logged >= self._log_every:
            self._logged = now
            self._journal.metrics(self.numbers(), step=self.done)

    def _pause(self, now: float) -> float:
        """Seconds from one line to the next: a log of a day has a hundred lines."""
        return self._every if self._terminal else max(self._every, _GROWTH * (now - self._begin))

    def skip(self, parts: int = 1) -> None:
        """Count `parts` that were there before: done, but not as speed."""
        self.done += parts
        self._before += parts

    def remaining(self) -> float | None:
        """Seconds to go, see `remaining`."""
        return remaining(self.done - self._before, self.total - self._before, self._clock() - self._begin)

    def line(self) -> str:
        """The state as one line."""
        seconds, left = self._clock() - self._begin, self.remaining()
        fields = [
            self.stage,
            f"{self.done}/{self.total} {self.parts}",
            format_rate(self.items, seconds, self.unit),
            f"ETA {'-' if left is None else format_duration(left)}",
            *self._failed(),
        ]
        return "  ".join(fields)

    def _failed(self) -> list[str]:
        return [f"failed {self.failed}"] if self.failed else []

    def numbers(self) -> dict[str, float]:
        """The state as metrics."""
        seconds = self._clock() - self._begin
        return {
            f"{self.stage}/{self.unit}_per_second": self.items / seconds if seconds > 0 else 0.0,
            f"{self.stage}/{self.unit}": self.items,
            f"{self.stage}/failed": self.failed,
            f"{self.stage}/seconds": seconds,
        }

    def close(self, note: str = "") -> None:
        """Make room for the next line, or end with what failed and `note`; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        meters.left(self.stage, 0)
        seconds = self._clock() - self._begin
        fields = [
            self.stage,
            f"{self.done}/{self.total} {self.parts}",
            f"{self.items} {self.unit} in {seconds:.1f} s",
            format_rate(self.items, seconds, self.unit),
            *self._failed(),
        ]
        if self.failed or note:
            self._print("  ".join([*fields, *filter(None, [note])]), last=True)
        elif self._width:
            self._write(f"\r{' ' * self._width}\r")
        if self._journal:
            self._journal.metrics(self.numbers(), step=self.done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("" if error is None else f"stopped by {type(error).__name__}")

    def _print(self, text: str, last: bool) -> None:
        """One line of its own, or on a terminal the same line again, blanks over what was longer before."""
        if self._terminal:
            padded = text.ljust(self._width)
            self._width = len(text)
            text = f"\r{padded}" + ("\n" if last else "")
        else:
            text += "\n"
        self._write(text)

    def _write(self, text: str) -> None:
        _write(self._stream, text)


def tell(line: str) -> None:
    """Write a line for whoever reads the log."""
    _write(sys.stdout, f"{line}\n")


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):  # the reader of a pipe is gone, or the stream is closed: the work goes on
        pass

import doctest
import io

import pytest

import cluster.engine.progress
from cluster.engine.progress import Progress, format_duration, format_rate, remaining, short_number
from cluster.tracking.journal import Journal, read_events


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_documented_examples():
    assert doctest.testmod(cluster.engine.progress).failed == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (86_400, "1d 0:00:00"), (-3, "0:00")],
)
def test_duration(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999.4, "999"), (999.6, "1k"), (1234, "1.23k"), (2.5e9, "2.5G"), (7.2e15, "7.2e+03T")]
)
def test_short_number(value, text):
    assert short_number(value) == text


def test_rate_and_remaining_before_anything_is_known():
    assert format_rate(0, 3, "images") == "- images/s"
    assert format_rate(3, 0, "images") == "- images/s"
    assert remaining(0, 10, 5) is None
    assert remaining(12, 40, 18) == 42


def test_plain_lines_every_few_seconds_and_a_closing_line():
    clock, stream = Clock(), io.StringIO()
    with Progress("label", 40, stream=stream, clock=clock) as progress:
        for _ in range(12):
            clock.now += 1.5
            progress.update(items=465)
    lines = stream.getvalue().splitlines()
    assert lines[:3] == [
        "label  4/40 shards  310 images/s  ETA 0:54",
        "label  8/40 shards  310 images/s  ETA 0:48",
        "label  12/40 shards  310 images/s  ETA 0:42",
    ]
    assert lines[3:] == ["label  12/40 shards  5580 images in 18.0 s  310 images/s"]


def test_parts_done_before_count_as_done_but_not_as_speed():
    clock, stream = Clock(), io.StringIO()
    progress = Progress("label", 40, done=30, stream=stream, clock=clock)
    clock.now += 10
    progress.update(parts=5, items=100, failed=1)
    assert stream.getvalue() == "label  35/40 shards  10 images/s  ETA 0:10  failed 1\n"


def test_skipped_parts_do_not_count_as_speed_either():
    clock, stream = Clock(), io.StringIO()
    progress = Progress("label", 40, stream=stream, clock=clock)
    progress.skip(30)
    clock.now += 10
    progress.update(parts=5, items=100)
    assert stream.getvalue() == "label  35/40 shards  10 images/s  ETA 0:10\n"


def test_a_terminal_gets_one_line_that_is_overwritten():
    clock, stream = Clock(), Terminal()
    progress = Progress("pair", 2, unit="tasks", parts="groups", stream=stream, clock=clock)
    for _ in range(2):
        clock.now += 1
        progress.update(items=10)
    progress.close()
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.startswith("\rpair  1/2 groups  10 tasks/s  ETA 0:01\rpair  2/2")
    assert text.endswith("\rpair  2/2 groups  20 tasks in 2.0 s  10 tasks/s\n")


def test_an_exception_is_named_and_goes_on():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress("train", 1, stream=stream):
        raise RuntimeError("no")
    assert stream.getvalue().endswith("stopped by RuntimeError\n")


def test_a_broken_pipe_stops_nothing():
    stream = io.StringIO()
    progress = Progress("train", 1, stream=stream)
    progress.update(items=3)
    stream.close()
    progress.close()
    assert (progress.done, progress.items) == (1, 3)


def test_the_journal_gets_the_same_numbers(tmp_path):
    clock = Clock()
    journal = Journal(tmp_path, "shard")
    with Progress("shard", 4, stream=io.StringIO(), clock=clock, journal=journal) as progress:
        clock.now += 6
        progress.update(items=60, failed=1)
    events = [event for event in read_events(journal.path)[0] if event["kind"] == "metrics"]
    expected = {"shard/images_per_second": 10, "shard/images": 60, "shard/failed": 1, "shard/seconds": 6}
    assert [event["values"] for event in events] == [expected], "and once for a step"
    assert {event["step"] for event in events} == {1}

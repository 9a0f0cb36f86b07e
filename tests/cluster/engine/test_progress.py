import doctest
import io

import pytest

import cluster.engine.progress
from cluster.engine.progress import Progress, ended, format_duration, format_rate, remaining, short_number
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


def test_plain_lines_every_few_seconds():
    clock, stream = Clock(), io.StringIO()
    with Progress("label", 40, stream=stream, clock=clock) as progress:
        for _ in range(12):
            clock.now += 1.5
            progress.update(items=465)
    assert stream.getvalue().splitlines() == [
        "label  4/40 shards  310 images/s  ETA 0:54",
        "label  8/40 shards  310 images/s  ETA 0:48",
        "label  12/40 shards  310 images/s  ETA 0:42",
    ]


def test_a_log_of_many_hours_stays_short():
    clock, stream = Clock(), io.StringIO()
    with Progress("train", 86_400, stream=stream, clock=clock) as progress:
        for _ in range(86_400):
            clock.now += 1
            progress.update()
    assert 50 < len(stream.getvalue().splitlines()) < 100


def test_what_failed_stays_to_be_read():
    clock, stream = Clock(), io.StringIO()
    with Progress("label", 2, stream=stream, clock=clock) as progress:
        clock.now += 2
        progress.update(items=20)
        progress.update(failed=1)
    assert stream.getvalue() == "label  2/2 shards  20 images in 2.0 s  10 images/s  failed 1\n"


def test_the_end_of_a_stage_without_its_unit_or_of_many_minutes():
    assert ended("index", {"bytes": 3}, "regions", 1.23) == "index  1.2 s"
    assert ended("train", {"episodes": 7200}, "episodes", 3600) == "train  7200 episodes in 1:00:00  2 episodes/s"


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
    progress = Progress("pair", 3, unit="tasks", parts="groups", stream=stream, clock=clock)
    for _ in range(3):
        clock.now += 1
        progress.update(items=10)
    progress.close()
    progress.close()
    first, second = "pair  1/3 groups  10 tasks/s  ETA 0:02", "pair  2/3 groups  10 tasks/s  ETA 0:01"
    assert stream.getvalue() == f"\r{first}\r{second}\r{' ' * len(second)}\r", "and then room for the stage's own line"


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

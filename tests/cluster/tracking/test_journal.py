"""The journal: what is written stays, whatever happens to the writer."""

import doctest
import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import cluster.tracking.journal
from cluster.tracking.events import clean_key, slices
from cluster.tracking.journal import InUseError, Journal, flatten, read_events
from fss import seals


def kinds(journal):
    return [event["kind"] for event in read_events(journal.path)[0]]


def test_documented_examples():
    assert doctest.testmod(cluster.tracking.journal).failed == 0


def test_flatten_cuts_long_values_visibly():
    flat = flatten({"a": {"b": {}, "c": [1, 2]}, "long": "x" * 7000})
    assert flat["a.b"] == "{}"
    assert flat["a.c"] == "[1, 2]"
    assert len(flat["long"]) == 6000
    assert flat["long"].endswith("x…")


def test_events_are_numbered_and_keep_their_values(folder):
    with Journal(folder, "train", parent="demo") as journal:
        journal.params({"lr": 0.1})
        journal.metrics({"train/loss": np.float32(0.5)}, step=3)
    events, _ = read_events(journal.path)
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert [event["kind"] for event in events] == ["start", "params", "metrics", "end"]
    assert events[0]["parent"] == "demo"
    assert events[2]["values"] == {"train/loss": 0.5}
    assert events[3]["status"] == "FINISHED"


def points(journal):
    """Name, step and value of all metrics, in the order of the journal."""
    found = [event for event in read_events(journal.path)[0] if event["kind"] == "metrics"]
    return [(name, event["step"], value) for event in found for name, value in event["values"].items()]


def test_what_is_not_finite_is_a_tag(folder):
    with Journal(folder, "train") as journal:
        journal.metrics({"loss": 0.5, "norm": float("inf"), "rate": -np.inf}, step=3)
        journal.metrics({"loss": np.float32("nan")})
    assert points(journal) == [("loss", 3, 0.5)]
    tags = [event["values"] for event in read_events(journal.path)[0] if event["kind"] == "tags"]
    assert tags == [
        {"not_finite.norm": "inf at step 3", "not_finite.rate": "-inf at step 3"},
        {"not_finite.loss": "nan"},
    ]


def test_a_metric_has_one_value_a_step_however_often_a_run_is_resumed(folder):
    """Of two values of one step and millisecond MLflow shows the larger one as the latest."""
    with Journal(folder, "train") as journal:
        for step, loss in ((2, 0.5), (4, 0.4), (4, 0.9)):
            journal.metrics({"loss": loss}, step)
        journal.metrics({"seconds": 7.0, "images": 60})
    with Journal(folder, "train") as again:
        for step, loss in ((4, 0.8), (6, 0.3)):
            again.metrics({"loss": loss, "norm": 1.0}, step)
        again.metrics({"seconds": 3.0, "images": 60})
    assert sorted(points(journal)) == [
        ("images", 0, 60.0),
        ("loss", 2, 0.5),
        ("loss", 4, 0.4),
        ("loss", 6, 0.3),
        ("norm", 4, 1.0),
        ("norm", 6, 1.0),
        ("seconds", 0, 7.0),
        ("seconds", 1, 3.0),
    ]


def test_an_exception_fails_the_run_and_goes_on(folder):
    with pytest.raises(ZeroDivisionError), Journal(folder, "train") as journal:
        1 / 0  # noqa: B018
    events, _ = read_events(journal.path)
    assert events[-1]["status"] == "FAILED"
    assert events[-2]["values"]["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("run", ["", "../up", "a/b", "-x", "x" * 101, "ü"])
def test_a_name_that_is_no_file_name_is_an_error(folder, run):
    with pytest.raises(ValueError, match="choose another name"):
        Journal(folder, run)


WHOLE = json.dumps(seals.sealed({"seq": 3, "kind": "tags", "values": {}})).encode()


@pytest.mark.parametrize("tail", [b'{"seq": 9, "ti', b"\0\0\0\0", WHOLE])
def test_a_torn_last_line_does_not_break_the_sequence(folder, tail):
    with Journal(folder, "train") as journal:
        pass
    before = journal.path.read_bytes()
    journal.path.write_bytes(before + tail)
    assert len(read_events(journal.path)[0]) == 2, "a line without newline is still being written"
    resumed = Journal(folder, "train")
    resumed.metrics({"x": 1})
    sequence = [event["seq"] for event in read_events(resumed.path)[0]]
    assert sequence == list(range(1, len(sequence) + 1))
    assert sequence[-1] == (5 if tail == WHOLE else 4)
    assert journal.path.read_bytes().startswith(before), "nothing already written is touched"


def test_a_journal_survives_kill_9(folder):
    code = (
        "import sys; from cluster.tracking.journal import Journal; j = Journal(sys.argv[1], 'train')\n"
        "for step in range(10**9): j.metrics({'x': step}, step)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    path = folder / "train.jsonl"
    while process.poll() is None and not (path.exists() and path.stat().st_size > 20_000):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = len(read_events(path)[0])
    assert written > 50
    journal = Journal(folder, "train")
    events, _ = read_events(path)
    assert [event["seq"] for event in events] == list(range(1, written + 2))
    assert events[-1]["kind"] == "start"
    journal.close()


def test_a_line_that_was_changed_is_no_event(folder):
    with Journal(folder, "train") as journal:
        journal.metrics({"x": 1.5}, 3)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole.replace(b"1.5", b"1.4"))
    assert [event["seq"] for event in read_events(journal.path)[0]] == [1, 3]
    journal.path.write_bytes(whole)
    assert [event["seq"] for event in read_events(journal.path)[0]] == [1, 2, 3]


_HOLDING = """
import sys
from cluster.tracking.journal import Journal
journal = Journal(sys.argv[1], "train")
print("held", flush=True)
sys.stdin.readline()
journal.metrics({"x": 1})
journal.end()
"""


def test_a_second_writer_is_refused_before_it_writes_anything(folder):
    command = [sys.executable, "-c", _HOLDING, str(folder)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"held\n"
    path = folder / "train.jsonl"
    before = path.read_bytes()
    with pytest.raises(InUseError, match=rf"another run is writing {path}; wait for it, stop it, or choose another"):
        Journal(folder, "train")
    assert path.read_bytes() == before
    with Journal(folder, "label") as other:  # another run beside it
        other.metrics({"x": 1})
    first.communicate(b"go on\n")
    assert first.returncode == 0
    assert [event["kind"] for event in read_events(path)[0]] == ["start", "metrics", "end"]
    assert Journal(folder, "train").sequence == 4


def test_a_successor_waits_for_the_one_before(folder):
    first = Journal(folder, "train")
    threading.Timer(0.3, first.end).start()
    second = Journal(folder, "train", patience=60)
    assert second.sequence == 3, "start and end of the first are there"
    second.end()


def test_threads_share_a_journal(folder):
    journal = Journal(folder, "train")
    threads = [threading.Thread(target=lambda: [journal.tags({"x": 1}) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["seq"] for event in read_events(journal.path)[0]] == list(range(1, 202))


def test_reading_goes_on_where_it_stopped(folder):
    journal = Journal(folder, "train")
    _, offset = read_events(journal.path)
    assert read_events(journal.path, offset) == ([], offset)
    journal.metrics({"x": 1})
    events, _ = read_events(journal.path, offset)
    assert [event["seq"] for event in events] == [2]


def test_a_disk_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    journal = Journal(blocked / "tracking", "train")
    journal.metrics({"x": 1})
    journal.image("x", np.zeros((2, 2), np.uint8))
    journal.end()
    assert sum("cannot write the journal" in record.message for record in caplog.records) == 1
    blocked.unlink()
    journal.metrics({"x": 2})
    assert kinds(journal) == ["start", "metrics"], "it goes on once the disk takes data again"


def test_what_is_no_number_or_no_picture_is_left_out_and_named(folder, caplog):
    journal = Journal(folder, "train")
    journal.metrics({"good": 1, "bad": "three"})
    journal.image("strange", np.zeros((2, 2, 7)))
    assert caplog.records[0].message == ("run train: metric bad is no number and is left out: 'three'")
    assert "image strange is left out" in caplog.records[1].message
    assert kinds(journal) == ["start", "metrics"]


# Limits


def test_slices_keep_count_and_size():
    assert list(slices([1] * 5, 2, lambda item: 0)) == [[1, 1], [1, 1], [1]]
    assert list(slices([3, 3, 9, 1], 10, lambda item: item, limit=6)) == [[3, 3], [9], [1]]
    assert list(slices([], 2, len)) == []


@pytest.mark.parametrize(
    ("key", "clean"),
    [("a/b", "a/b"), ("../a//b:(c)", "a/b__c_"), ("/", "_"), ("größe", "größe"), ("k" * 300, "k" * 250)],
)
def test_clean_key(key, clean):
    assert clean_key(key) == clean

"""The journal, and what becomes of it in MLflow: in time, late, twice, and while the server is away."""

import contextlib
import doctest
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

import cluster.tracking.journal
from cluster.tracking.events import clean_key, slices
from cluster.tracking.journal import Journal, flatten, read_events
from cluster.tracking.shipper import Shipper, default_tracking_uri, redact, remedy
from tests.cluster.store import FILES, ship, ship_to, versions


def kinds(journal):
    return [event["kind"] for event in read_events(journal.path)[0]]


# The journal


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
        journal.metrics({"train/loss": np.float32(0.5), "train/bad": float("nan")}, step=3)
    events, _ = read_events(journal.path)
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert [event["kind"] for event in events] == ["start", "params", "metrics", "end"]
    assert events[0]["parent"] == "demo"
    assert events[2]["values"]["train/loss"] == 0.5
    assert np.isnan(events[2]["values"]["train/bad"])
    assert events[3]["status"] == "FINISHED"


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


@pytest.mark.parametrize("tail", [b'{"seq": 9, "ti', b"\0\0\0\0", b'{"seq": 3, "kind": "tags", "values": {}}'])
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
    assert sequence[-1] == (5 if tail.endswith(b"}") else 4)
    assert journal.path.read_bytes().startswith(before), "nothing already written is touched"


def test_a_journal_survives_kill_9(folder):
    code = (
        "import sys; from cluster.tracking.journal import Journal; j = Journal(sys.argv[1], 'train')\n"
        "for step in range(10**9): j.metrics({'x': step}, step)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    path = folder / "train.jsonl"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 20_000):
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


def test_threads_share_a_journal(folder):
    journal = Journal(folder, "train")
    threads = [threading.Thread(target=lambda: [journal.metrics({"x": 1}) for _ in range(50)]) for _ in range(4)]
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


# MLflow


def test_everything_lands_in_the_store(folder, root, client, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<p>")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.txt").write_text("1")
    with Journal(folder, "pipeline") as parent, Journal(folder, "train", parent="pipeline") as train:
        parent.tags({"mlflow.note.content": "**what**"})
        train.params({"optimizer": {"lr": 0.1}})
        train.metrics({"train/loss": 0.7, "train/nan": float("nan")}, step=1)
        train.metrics({"train/loss": 0.6}, step=2)
        train.image("episode", np.zeros((8, 8, 3)), step=5)
        train.artifact(report, "reports")
        train.artifact(tmp_path / "model")
        train.text("notes/readme.md", "hello")
        train.dataset("tasks", "d" * 64, "/data/tasks", "training")
    run_ids = ship(folder, root).run_ids()
    run = client.get_run(run_ids["train"])
    assert run.info.run_name == "train (demo)"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"optimizer.lr": "0.1"}
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (1, 0.7), (2, 0.6),
    ]  # fmt: skip
    assert run.data.tags["mlflow.parentRunId"] == run_ids["pipeline"]
    pipeline = client.get_run(run_ids["pipeline"])
    assert pipeline.info.run_name == run.data.tags["pipeline"] == "demo", "the pipeline's own name, not its journal's"
    assert pipeline.data.tags["mlflow.note.content"] == "**what**"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("tasks", "d" * 36)
    assert dataset.tags[0].value == "training"
    images = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert sorted(path.rpartition(".")[2] for path in images) == ["png", "webp"]
    assert all("episode" in path and "step+5" in path for path in images)
    assert [item.path for item in client.list_artifacts(run.info.run_id, "model")] == ["model/weights.txt"]
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"images", "model", "notes", "reports"}
    assert (root / "mlartifacts").is_dir()


def test_shipping_twice_sends_once_even_without_its_memory(folder, root, client):
    with Journal(folder, "train") as journal:
        for step in range(3):
            journal.metrics({"loss": step}, step)
        journal.image("picture", np.zeros((4, 4), np.uint8), step=0)
    first = ship(folder, root, "replay").run_ids()
    state = folder / "train.mlflow.json"
    for damage in (lambda: None, state.unlink, lambda: state.write_text("{torn")):
        damage()
        assert ship(folder, root, "replay").run_ids() == first
    assert len(client.get_metric_history(first["train"], "loss")) == 3
    assert len(client.list_artifacts(first["train"], "images")) == 2
    assert len(client.search_runs([client.get_experiment_by_name("replay").experiment_id])) == 1
    assert json.loads(state.read_text())["acknowledged"] == journal.sequence


def test_an_answer_that_got_lost_costs_no_duplicates(folder, root, client, monkeypatch):
    journal = Journal(folder, "train")
    shipper = ship(folder, root)
    sender = shipper._senders["train"]
    monkeypatch.setattr(sender, "_acknowledge", lambda sequence: (_ for _ in ()).throw(OSError("power cut")))
    journal.metrics({"loss": 1}, 0)
    assert not shipper.ship_once()
    run_ids = ship(folder, root).run_ids()
    assert len(client.get_metric_history(run_ids["train"], "loss")) == 1


def test_a_resumed_run_is_the_same_run_and_running_again(folder, root, client):
    with Journal(folder, "train") as journal:
        journal.params({"lr": 1, "seed": 2})
    run_id = ship(folder, root).run_ids()["train"]
    resumed = Journal(folder, "train")
    resumed.params({"lr": 3, "seed": 2, "extra": 4})
    shipper = ship(folder, root)
    run = client.get_run(run_id)
    assert shipper.run_ids()["train"] == run_id
    assert run.info.status == "RUNNING"
    assert run.data.params == {"lr": "1", "seed": "2", "extra": "4"}
    assert run.data.tags["param_changed.lr"] == "3"
    resumed.end("FAILED")
    assert shipper.ship_once()
    assert client.get_run(run_id).info.status == "FAILED"


def test_more_than_one_batch_holds(folder, root, client):
    with Journal(folder, "big") as journal:
        journal.params({f"p{i}": "é" * 3000 for i in range(130)})
        journal.tags({f"t{i}": i for i in range(130)})
        journal.metrics({f"m{i}": i for i in range(1500)})
    run = client.get_run(ship(folder, root).run_ids()["big"])
    assert (len(run.data.params), len(run.data.metrics)) == (130, 1500)
    assert run.data.tags["t129"] == "129"


def test_one_bad_event_is_left_out_and_the_rest_arrives(folder, root, client, caplog):
    journal = Journal(folder, "train")
    journal.artifact(folder / "never-written.bin")
    journal.image("broken", b"no png", step=1)
    journal.metrics({"after": 1})
    run = client.get_run(ship(folder, root).run_ids()["train"])
    assert run.data.metrics == {"after": 1}
    messages = [record.message for record in caplog.records]
    assert any("never-written.bin is gone" in message for message in messages)
    assert any("is no readable PNG" in message for message in messages)


def test_a_file_that_fails_while_the_server_is_well_holds_up_no_numbers(folder, root, client, monkeypatch):
    journal = Journal(folder, "train")
    journal.text("a.md", "hello")
    journal.metrics({"after": 1})

    def fail(*arguments):
        raise OSError("upload broke")

    with monkeypatch.context() as patch:
        patch.setattr("cluster.tracking.sync.send_file", fail)
        shipper = ship(folder, root)
        assert shipper.unsent() == {"train": 1}
    run_id = shipper.run_ids()["train"]
    assert client.get_run(run_id).data.metrics == {"after": 1}
    later = ship(folder, root)
    assert later.unsent() == {}
    assert [item.path for item in client.list_artifacts(run_id)] == ["a.md"]


def test_a_run_deleted_by_the_user_is_left_alone(folder, root, client, caplog):
    journal = Journal(folder, "train")
    shipper = ship(folder, root)
    client.delete_run(shipper.run_ids()["train"])
    journal.metrics({"x": 1})
    assert shipper.ship_once()
    assert shipper.unsent() == {}
    assert "was deleted in MLflow" in caplog.text
    assert sum("deleted" in record.message for record in caplog.records) == 1


def test_link_to_a_run(folder, root, client):
    Journal(folder, "train").end()
    shipper = ship(folder, root)
    run = client.get_run(shipper.run_ids()["train"])
    path = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert shipper.link("train", "http://h:5000/") == f"http://h:5000/#/{path}?workflowType=machine_learning"
    assert shipper.link("train") is None, "a file has no pages"
    assert shipper.link("other", "http://h:5000") is None


def start_server(root, port):
    """A real MLflow server, once it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/server.db", "--artifacts-destination", f"{root}/served"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return server
        time.sleep(0.3)
    os.killpg(server.pid, signal.SIGKILL)
    raise TimeoutError("no MLflow server within a minute")


def test_a_server_away_at_the_start_in_the_middle_and_at_the_end_loses_nothing(folder, root, model):
    import mlflow

    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    shipper = Shipper(folder, uri, "outages", timeout=30)
    journal = Journal(folder, "train")
    for up in (False, True, False, True, False):
        server = start_server(root, port) if up else None
        journal.metrics({"loss": journal.sequence}, journal.sequence)
        journal.image("examples", np.zeros((4, 4), np.uint8), step=journal.sequence)
        assert shipper.ship_once() == up
        if server:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    journal.artifact(model, "model")
    journal.register("outages", "champion", model, "model")
    journal.end()
    assert not shipper.ship_once()
    server = start_server(root, port)
    try:
        for _ in range(2):
            again = ship_to(folder, uri, "outages")
        run_id, client = again.run_ids()["train"], mlflow.MlflowClient(uri)
        assert [p.value for p in client.get_metric_history(run_id, "loss")] == [1, 3, 5, 7, 9]
        assert len(client.list_artifacts(run_id, "images")) == 2 * 5
        assert client.get_run(run_id).info.status == "FINISHED"
        assert versions(client, "outages") == [(1, FILES, ["champion"])]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


# Away


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_away_costs_one_warning_and_no_data(folder, root, client, caplog):
    settings = dict(os.environ)
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    shipper = Shipper(folder, uri, "away", every=0.1)
    begin = time.monotonic()
    with shipper, Journal(folder, "train") as journal:
        for step in range(5):
            journal.metrics({"loss": step}, step)
            time.sleep(0.1)
    assert time.monotonic() - begin < 10
    assert dict(os.environ) == settings
    warnings = [record.message for record in caplog.records if record.name.startswith("cluster")]
    assert len(warnings) == 2, warnings
    assert "Check that `mlflow server` runs there" in warnings[0]
    assert "secret" not in caplog.text
    root_folder = folder.parent.parent
    assert warnings[1].endswith(f"python -m jobs.sync root={root_folder} name=demo")
    assert warnings[1].startswith("tracking: 7 events of 1 runs")
    run_id = ship(folder, root).run_ids()["train"]
    assert len(client.get_metric_history(run_id, "loss")) == 5


class InvalidHost(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(403)
        self.end_headers()
        self.wfile.write(b"Invalid Host header - possible DNS rebinding attack detected")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


def test_a_server_that_refuses_its_name_is_explained(folder, root, caplog):
    server = HTTPServer(("127.0.0.1", 0), InvalidHost)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Journal(folder, "train").end()
    shipper = Shipper(folder, f"http://127.0.0.1:{server.server_port}", "away")
    assert not shipper.ship_once()
    assert not shipper.ship_once()
    server.shutdown()
    server.server_close()
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert f"--allowed-hosts 127.0.0.1,127.0.0.1:{server.server_port}" in warnings[0]


def test_a_server_that_hangs_costs_one_timeout(folder, root):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        Journal(folder, "train").end()
        shipper = Shipper(folder, f"http://127.0.0.1:{silent.getsockname()[1]}", "away", timeout=1)
        begin = time.monotonic()
        assert not shipper.ship_once()
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    ("trouble", "uri", "word"),
    [
        ("failed with error code 401", "http://h:5000", "MLFLOW_TRACKING_USERNAME"),
        ("failed with error code 404 != 200", "http://h:5000", "proxy"),
        ("Detected out-of-date database schema", "sqlite:///x.db", "mlflow db upgrade sqlite:///x.db"),
        ("The filesystem tracking backend is in maintenance", "runs/mlruns", "sqlite:///"),
        ("disk I/O error", "sqlite:///x.db", "tried again"),
    ],
)
def test_remedies(trouble, uri, word):
    assert word in remedy(trouble, uri)


def test_redact():
    assert redact("to http://me:pass@host:5/x failed") == "to http://***@host:5/x failed"
    assert redact("postgresql://u:p@db/m") == "postgresql://***@db/m"
    assert redact("http://host/a@b") == "http://host/a@b"


def test_a_folder_of_another_process_is_left_to_it(folder, root):
    import fcntl

    Journal(folder, "train").end()
    with (folder / ".shipper.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not Shipper(folder, default_tracking_uri(root), "tests").ship_once()
    assert Shipper(folder, default_tracking_uri(root), "tests").ship_once()


def test_nothing_to_send_is_no_trouble(folder, root):
    with Shipper(folder, "http://127.0.0.1:9", "none") as shipper:
        pass
    assert shipper.stop() == 0

"""MLflow is away, slow or refuses: nothing is lost, and the run hardly waits."""

import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest

from cluster.tracking.journal import Journal, read_events
from cluster.tracking.shipper import Shipper, default_tracking_uri, remedy
from tests.cluster.relay import Relay
from tests.cluster.served import served
from tests.cluster.store import FILES, ship, ship_to, versions


@pytest.fixture(scope="module")
def server(root):
    """The port of a real MLflow server."""
    with served(root, f"sqlite:///{root}/server.db") as address:
        yield urlsplit(address).port


def test_a_server_away_at_the_start_in_the_middle_and_at_the_end_loses_nothing(folder, server, model):
    import mlflow

    with Relay(server) as relay:
        shipper = Shipper(folder, relay.uri, "outages", timeout=300)
        journal = Journal(folder, "train")
        for up in (False, True, False, True, False):
            if up:
                relay.up()
            journal.metrics({"loss": journal.sequence}, journal.sequence)
            journal.image("examples", np.zeros((4, 4), np.uint8), step=journal.sequence)
            assert shipper.ship_once() == up
            relay.down()
        journal.artifact(model, "model")
        journal.register("outages", "champion", model, "model")
        journal.end()
        assert not shipper.ship_once()
        relay.up()
        for _ in range(2):
            again = ship_to(folder, relay.uri, "outages")
        run_id, client = again.run_ids()["train"], mlflow.MlflowClient(relay.uri)
        assert [p.value for p in client.get_metric_history(run_id, "loss")] == [1, 3, 5, 7, 9]
        assert len(client.list_artifacts(run_id, "images")) == 2 * 5
        assert client.get_run(run_id).info.status == "FINISHED"
        assert versions(client, "outages") == [(1, FILES, ["champion"])]


def test_a_server_that_is_away_costs_one_warning_and_no_data(folder, root, client, caplog):
    settings = dict(os.environ)
    with Relay() as relay:  # and never up
        shipper = Shipper(folder, f"http://user:secret@127.0.0.1:{relay.port}", "away")
        with shipper, Journal(folder, "train") as journal:
            for step in range(5):
                journal.metrics({"loss": step}, step)
                assert not shipper.ship_once()
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
    """Of one request, which is not repeated."""
    with Relay() as silent:
        silent.up()
        Journal(folder, "train").end()
        assert not Shipper(folder, silent.uri, "away", timeout=1).ship_once()
        assert silent.connections == 1


def test_a_server_that_hangs_holds_up_nobody_who_writes(folder, root):
    with Relay() as silent, Shipper(folder, silent.uri, "away", every=0.1, timeout=300) as shipper:
        silent.up()
        with Journal(folder, "train") as journal:
            assert silent.asked.wait(timeout=300)  # and now the shipper waits for an answer
            for step in range(5):
                journal.metrics({"loss": step}, step)
        assert [event["kind"] for event in read_events(journal.path)[0]] == ["start", *["metrics"] * 5, "end"]
        assert shipper.run_ids() == {}  # it still does
        assert silent.connections == 1
        silent.down()


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

"""MLflow is away, slow or refuses: nothing is lost, and the run hardly waits."""

import contextlib
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

from cluster.tracking.journal import Journal
from cluster.tracking.shipper import Shipper, default_tracking_uri, remedy
from tests.cluster.store import FILES, ship, ship_to, versions


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(root, port):
    """A real MLflow server, once it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/server.db", "--artifacts-destination", f"{root}/served"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 180  # it starts for seconds, on a busy machine for a minute
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return server
        time.sleep(0.3)
    os.killpg(server.pid, signal.SIGKILL)
    raise TimeoutError("no MLflow server within three minutes")


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

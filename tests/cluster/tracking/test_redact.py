"""A login that stands in an address is in nothing that a run writes, logs, prints or sends to others."""

import contextlib
import doctest
import functools
import http.server
import logging
import sys
import threading

import pyarrow.parquet as pq
import pytest

from cluster.config import TrackingConfig
from cluster.tracking import redact as module
from cluster.tracking.journal import Journal
from cluster.tracking.redact import redact, redacted
from cluster.tracking.shipper import Shipper, default_tracking_uri, tracking_place
from tests.cluster.here import here

SECRET = "hunter2-hunter2"


def test_documented_examples():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to http://me:pass@host:5/x failed", "to http://***@host:5/x failed"),
        ("postgresql://u:p@db/m", "postgresql://***@db/m"),
        ("postgresql://u:p/a@ss@db:5432/m", "postgresql://***@db:5432/m"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("simplecache::s3://a:b@c/d", "simplecache::s3://***@c/d"),
        ("https://h/a?sig=abc&sv=1, next", "https://h/a?sig=***&sv=1, next"),
        ("https://h/a?X-Amz-Credential=a%2Fb&X-Amz-Date=1", "https://h/a?X-Amz-Credential=***&X-Amz-Date=1"),
        ("<https://h/a?v=1&amp;Signature=ab>", "<https://h/a?v=1&amp;Signature=***>"),
        ("['http://h/x?token=a', 'b@c']", "['http://h/x?token=***', 'b@c']"),
        ("/data/x?token=abc", "/data/x?token=abc"),
        ("https://h/?keyword=5", "https://h/?keyword=5"),
        ("http://h/x#access_token=abc", "http://h/x#access_token=***"),
        ("https://h/a;jsessionid=F0", "https://h/a;jsessionid=***"),
        ("Authorization: Bearer eyJ.a-b", "Authorization: Bearer ***"),
        ("AccountName=a;AccountKey=Zm9v==;End=c", "AccountName=a;AccountKey=***;End=c"),
        ("{'aws_secret_access_key': 'wJ/x+y'}", "{'aws_secret_access_key': '***'}"),
        (f"401 for hf_{'aB3' * 11}d", "401 for ***"),
        ("hf_backbones/vit.pth", "hf_backbones/vit.pth"),
    ],
)
def test_only_logins_are_hidden(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


def test_text_anywhere_in_a_value_is_redacted():
    value = {"uri": "http://a:b@c", "n": 3, "deep": [{"x": ("s3://k:s@b",)}, None]}
    assert redacted(value) == {"uri": "http://***@c", "n": 3, "deep": [{"x": ["s3://***@b"]}, None]}


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    before = logging.getLogRecordFactory()
    module.install()
    yield
    logging.setLogRecordFactory(before)


def test_log_records_and_tracebacks_of_anybody_are_redacted(installed, caplog, capsys):
    url = f"http://me:{SECRET}@host/a?sig={SECRET}"
    try:
        raise ValueError(url)
    except ValueError as error:
        logging.getLogger("somebody.else").warning("cannot read %s", url, exc_info=True)
        sys.excepthook(type(error), error, error.__traceback__)
    told = caplog.text + capsys.readouterr().err
    assert told.count("ValueError: http://***@host/a?sig=***") == 2
    assert "cannot read http://***@host/a?sig=***" in told
    assert SECRET not in told


class Recorder(http.server.BaseHTTPRequestHandler):
    """A tracking server that wants a login and is out of order."""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path.encode() + body, self.headers.get("Authorization")))
        self.send_error(500)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *arguments):
        pass


class Pictures(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def texts(folder):
    """What a reader could find in each file below `folder`, those inside of Parquet files too; the names as well."""
    for path in folder.rglob("*"):
        if path.is_file():
            shown = str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else b""
            yield path, str(path).encode() + path.read_bytes() + shown


def test_a_run_hides_the_logins_of_its_addresses(configure, photos, tmp_path, installed, caplog, capfd):
    names = sorted(path.name for path in (photos / "JPEGImages").iterdir())[:12]
    with (
        serving(functools.partial(Pictures, directory=str(photos / "JPEGImages"))) as pictures,
        serving(Recorder) as tracker,
        caplog.at_level(logging.DEBUG),
    ):
        signed = f"http://127.0.0.1:{pictures.server_port}/{names[0]}?AWSAccessKeyId=AK&Signature={SECRET}"
        (tmp_path / "list.txt").write_text("\n".join([*names[1:], "gone.jpg", signed]))
        config = configure(
            tmp_path / "runs",
            f"corpus.root=http://me:{SECRET}@127.0.0.1:{pictures.server_port}",
            f"corpus.list={tmp_path}/list.txt",
            "tracking.enabled=true",
            f"tracking.uri=http://me:{SECRET}@127.0.0.1:{tracker.server_port}",
        )
        with here(config) as run:
            manifest = run.ensure("shard")
        requests = tracker.seen
    assert manifest.counts["accepted"] == len(names)
    assert manifest.counts["rejected"] == 1, "the one that is gone, by an error that names its address"
    ledger = [
        row for file in manifest.named(".parquet") for row in pq.read_table(manifest.folder / file.path).to_pylist()
    ]
    assert f"{pictures.server_port}/{names[0]}?AWSAccessKeyId=***&Signature=***" in str(ledger)
    found = list(texts(tmp_path / "runs"))
    assert any(path.suffix == ".jsonl" and b"corpus.root" in text for path, text in found)
    assert [path for path, text in found if SECRET.encode() in text] == []
    assert requests[0][1].startswith("Basic "), "the login is used"
    assert not any(SECRET.encode() in sent for sent, _ in requests)
    told = caplog.text + "".join(capfd.readouterr())
    assert "MLflow at http://127.0.0.1" in told
    assert SECRET not in told


def test_what_reaches_the_server_is_redacted(folder, root, client):
    with Journal(folder, "train") as journal:
        journal.params({"corpus": {"root": f"s3://key:{SECRET}@bucket/x"}})
        journal.tags({"error": f"https://h/a?sig={SECRET}"})
        journal.dataset("photos", "d" * 36, f"http://me:{SECRET}@h/", "input")
    shipper = Shipper(folder, default_tracking_uri(root), "secrets")
    assert shipper.ship_once()
    run = client.get_run(shipper.run_ids()["train"])
    assert run.data.params == {"corpus.root": "s3://***@bucket/x"}
    assert SECRET not in str(run.to_dictionary())


def test_variables_of_mlflow_are_honoured_and_told_once(monkeypatch, caplog, tmp_path):
    assert tracking_place(TrackingConfig(), tmp_path) == (default_tracking_uri(tmp_path), TrackingConfig().experiment)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@theirs:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    module_logger = "cluster.tracking.shipper"
    with caplog.at_level(logging.INFO, module_logger):
        for _ in range(2):
            assert tracking_place(TrackingConfig(), tmp_path) == ("http://me:secret@theirs:5000", "ours")
    assert len(caplog.messages) == 2
    assert "MLFLOW_TRACKING_URI" in caplog.messages[0]
    chosen = TrackingConfig(uri="http://mine", experiment="mine")
    assert tracking_place(chosen, tmp_path) == ("http://mine", "mine")

"""MLflow's pages: the last pipeline's own is printed, then the server takes over."""

import json
import os
import socket
import sys
from importlib.metadata import distributions
from pathlib import Path

import mlflow
import pytest
from fastapi import FastAPI
from mlflow import MlflowClient

from cluster.engine.refused import RefusedError
from cluster.tracking import browse
from cluster.tracking.journal import Journal
from cluster.tracking.shipper import default_tracking_uri, tracking_folder
from cluster.tracking.view import runs_page
from cluster.web import port
from jobs import ui
from tests.cluster.store import ship


@pytest.fixture
def started(monkeypatch):
    found = []
    monkeypatch.setattr(browse, "screen", lambda: False)
    monkeypatch.setattr(port, "listen", lambda *_: socket.socket())
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setattr(os, "execv", lambda program, arguments: found.append((program, arguments)))
    return found


def run(root, *more):
    ui.serve(ui.COMMAND.load([f"root={root}", *more]))


def application(plugin):
    (found,) = distributions(path=[str(plugin)])
    return found.entry_points


def pipeline(root, name, at):
    folder = tracking_folder(root, name)
    with Journal(folder, f"pipeline-{name}") as journal:
        journal.metrics({"loss": 1.0}, step=1)
    shipper = ship(folder, root)
    os.utime(folder / f"pipeline-{name}.mlflow.json", (at, at))
    return shipper.link(f"pipeline-{name}", "http://127.0.0.1:5001")


def test_the_last_pipelines_page_is_printed_and_the_server_started(tmp_path, started, capsys):
    last, first = pipeline(tmp_path, "last", 2), pipeline(tmp_path, "first", 1)
    assert first != last
    run(tmp_path, "port=5001")
    (experiment,) = MlflowClient(default_tracking_uri(tmp_path)).search_experiments(filter_string="name = 'tests'")
    every = runs_page("http://127.0.0.1:5001", experiment.experiment_id)
    assert capsys.readouterr().out == f"the last run: {last}\nall runs:     {every}\n"
    key = every.partition("viewStateShareKey=")[2].partition("&")[0]
    assert (
        "metrics.`result/miou_1shot`" in json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])["selectedColumns"]
    )
    ((program, arguments),) = started
    assert program == arguments[0] == sys.executable
    assert arguments[1:] == ["-m", "mlflow", "server", "--backend-store-uri", default_tracking_uri(tmp_path),
                             "--host", "127.0.0.1", "--port", "5001", "--workers", "1",
                             "--app-name", "model-training"]  # fmt: skip


def test_a_browser_opens_where_there_is_a_screen_and_the_server_is_for_it(tmp_path, started, monkeypatch):
    opened = []
    monkeypatch.setattr(browse, "later", opened.append)
    last = pipeline(tmp_path, "last", 2)
    run(tmp_path, "port=5001")
    (tmp_path / "empty").mkdir()
    run(tmp_path / "empty")
    run(tmp_path, "open=false")
    run(tmp_path, "host=0.0.0.0")
    assert opened == [last, "http://127.0.0.1:5000"]


def test_without_a_run_the_server_is_started_all_the_same(tmp_path, started, capsys):
    run(tmp_path)
    assert capsys.readouterr().out == f"no run below {tmp_path} yet; http://127.0.0.1:5000\n"
    assert len(started) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_not_there_is_refused_and_not_made(tmp_path, started):
    with pytest.raises(RefusedError, match=r"root: expected a folder of runs, there is no .*typo; set root=FOLDER"):
        run(tmp_path / "typo")
    assert not started
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_refused_before_a_page_is_printed(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(
            RefusedError, match=rf"port: expected a free port of 127.0.0.1, got {taken} \(.*; set port="
        ):
            run(tmp_path, f"port={taken}")
    assert not capsys.readouterr().out


def test_a_port_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"port: expected a port from 1 to 65535, got 70000"):
        ui.COMMAND.load([f"root={tmp_path}", "port=70000"])


def test_mlflow_finds_the_application_by_its_name(tmp_path, started):
    run(tmp_path)
    plugin, root, before = os.environ["PYTHONPATH"].split(os.pathsep)
    (entry,) = application(plugin)
    assert (entry.group, entry.name) == ("mlflow.app", started[0][1][-1])
    assert (Path(root) / "jobs" / "ui.py").is_file()
    assert before == "elsewhere"


def test_its_first_page_chooses_training_and_nothing_else_is_touched(tmp_path, monkeypatch):
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", default_tracking_uri(tmp_path))
    (entry,) = application(ui._PLUGIN)
    assert isinstance(entry.load(), FastAPI)
    from mlflow.server import app as pages

    first = pages.test_client().get("/").text
    assert 0 < first.index("mlflow.workflowType_v1") < first.index("metrics.`result/miou_1shot`")
    assert first.index("</script>") < first.index("<script defer")
    assert pages.test_client().get("/version").text == mlflow.__version__

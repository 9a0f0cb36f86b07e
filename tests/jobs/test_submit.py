"""The whole pipeline as users of a cluster run it: a Ray head of its own, a token, `ray job submit`, MLflow.

Slow: a head with its dashboard and agents takes ten seconds to start, each job starts a Python process for the driver,
each pool worker and each training worker, and all of them import torch.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster.engine.session import ROOT
from cluster.engine.stage import read_manifest
from cluster.tracking.shipper import default_tracking_uri

pytestmark = [pytest.mark.slow, pytest.mark.ray]

RAY = str(Path(sys.executable).parent / "ray")
SMALL = (
    "experiment=tiny",
    "backbone.weights=random",
    "corpus.scenes=24",
    "corpus.scenes_val=40",
    "corpus.shard_size=12",
    "source.clusters=4",
    "train.steps=2",
    "train.batch=2",
    "train.log_every=1",
    "fold=0",
    "shots=1",
    "episodes=4",
    "cluster.workers=1",
)


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Address and environment of a Ray that asks for a token; everything it started ends with it."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    here = {"HOME": str(home), "RAY_AUTH_MODE": "token", "PATH": f"{Path(RAY).parent}{os.pathsep}{os.environ['PATH']}"}
    environment = os.environ | here
    port, dashboard, agent, client = free_ports(4)
    sockets = tempfile.mkdtemp(prefix="r", dir="/tmp")  # names of Unix sockets must be short
    command = [
        *(RAY, "start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats", "--temp-dir", sockets),
        *("--node-ip-address", "127.0.0.1", "--port", str(port), "--dashboard-port", str(dashboard)),
        *("--dashboard-agent-listen-port", str(agent), "--ray-client-server-port", str(client)),
        *("--min-worker-port", "0", "--max-worker-port", "0"),
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_for(lambda: request(f"{address}/api/version") in (200, 401), process)
        yield address, environment
    finally:
        end(process)
        shutil.rmtree(sockets, ignore_errors=True)


def wait_for(ready, process):
    while not ready():
        assert process.poll() is None, "ray start ended"
        time.sleep(0.5)


def end(process):
    """End the head and all that it started."""
    import psutil

    parent = psutil.Process(process.pid)
    family = [*parent.children(recursive=True), parent] if process.poll() is None else []
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(family, timeout=5)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def request(url, token=None):
    """The HTTP status, 0 if nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def submit(head, *arguments):
    """`ray job submit` of the pipeline, its log followed to the end."""
    address, environment = head
    command = [RAY, "job", "submit", "--address", address, "--working-dir", "."]
    command += ["--runtime-env", "cluster/deploy/runtime-env.yaml", "--", "python", "-m", "jobs.pipeline", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def test_without_the_token_nobody_gets_in(head):
    address, environment = head
    token = (Path(environment["HOME"]) / ".ray" / "auth_token").read_text()
    assert request(f"{address}/api/jobs/") == 401
    assert request(f"{address}/api/jobs/", token="0" * 64) in (401, 403)
    assert request(f"{address}/api/jobs/", token=token) == 200


@pytest.fixture(scope="module")
def finished(head, tmp_path_factory):
    """Root folder and log of a pipeline that ran as a job."""
    root = tmp_path_factory.mktemp("submitted")
    status, log = submit(head, *SMALL, f"root={root}")
    assert status == 0, log[-6000:]
    return root, log


def test_the_job_leaves_a_finished_run(finished):
    root, log = finished
    folder = root / "tiny"
    stages = ("render", "shard", "sample", "kmeans", "label", "quality", "pair", "train", "evaluate")
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["stages"]) == set(stages)
    for stage in stages:
        top = json.loads((folder / stage / "manifest.json").read_text())
        assert all((folder / stage / f["path"]).stat().st_size == f["bytes"] for f in top["files"])
        manifest = read_manifest(folder / stage / top["fingerprint"] / "manifest.json")
        assert summary["stages"][stage]["counts"] == manifest.counts
    assert summary["stages"]["shard"]["counts"]["accepted"] == 24
    assert (Path(summary["model"]) / "model.json").is_file()
    page = (folder / "report.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "umtfss, meta-trained" in page
    assert "<h2>Clusters</h2>" in page
    assert summary["quality"]["masks"] == {"images": 24, "missing": 0}
    assert "umtfss, meta-trained" in log
    assert f"report:    {folder}/report.html" in log
    assert "succeeded" in log


def test_the_job_can_be_followed_in_its_log(finished):
    _, log = finished
    for line in ("render  ", "shard  2/2 shards", "label  2/2 shards", "evaluate  1/1 blocks"):
        assert line in log
    own = [line for line in log.splitlines() if " pid=" not in line]  # Ray's actors complain when other Rays are about
    assert not any("Traceback" in line for line in own)


def test_the_run_stands_in_mlflow(finished):
    import mlflow

    root, _ = finished
    client = mlflow.MlflowClient(default_tracking_uri(root))
    (experiment,) = [e for e in client.search_experiments() if e.name == "few-shot segmentation"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "tiny"]
    children = {run.info.run_name.split()[0]: run for run in runs if run is not parent}
    stages = {"render", "shard", "sample", "kmeans", "label", "quality", "pair", "train", "evaluate"}
    assert set(children) == stages
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    summary = json.loads((root / "tiny" / "summary.json").read_text())
    told = summary["results"]["models"]["umtfss, meta-trained"]["1"]["mean"]
    assert parent.data.metrics["result/miou_1shot"] == pytest.approx(told["miou"])
    assert children["evaluate"].data.metrics["evaluate/fb_iou_1shot"] == pytest.approx(told["fb_iou"])
    assert children["shard"].data.metrics["shard/accepted"] == 24
    told = summary["quality"]["objects"]["all"]["area_ratio"]
    assert children["quality"].data.metrics["quality/objects.all.area_ratio"] == pytest.approx(told)
    assert "atlas.jpg" in {f.path for f in client.list_artifacts(children["quality"].info.run_id)}
    losses = client.get_metric_history(children["train"].info.run_id, "train/loss")
    assert [metric.step for metric in losses] == [1, 2]
    assert parent.data.params["train.steps"] == "2"
    assert {"report.html", "summary.json"} <= {f.path for f in client.list_artifacts(parent.info.run_id)}


def test_a_wrong_configuration_fails_the_job_with_its_explanation(head, tmp_path):
    status, log = submit(head, *SMALL, f"root={tmp_path}", "train.stepz=1")
    assert status == 1
    assert "error: there is no key 'train.stepz'; did you mean train.steps" in log
    assert list(tmp_path.iterdir()) == []

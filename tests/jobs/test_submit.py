"""The whole pipeline as users of a cluster run it: a Ray head of its own, a token, `ray job submit`, MLflow.

Slow: a head with its dashboard and agents takes ten seconds to start, each job starts a Python process for the driver,
each pool worker and each training worker, and all of them import torch.
"""

import json
import subprocess
from pathlib import Path

import pytest

from cluster.engine.session import ROOT
from cluster.engine.stage import read_manifest
from cluster.tracking.shipper import default_tracking_uri
from tests import rays

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A Ray that asks for a token; everything it started ends with it."""
    with rays.head(tmp_path_factory.mktemp("home"), "--num-cpus", "2") as one:
        yield one


def submit(head, *arguments):
    """`ray job submit` of the pipeline, its log followed to the end."""
    command = [rays.RAY, "job", "submit", "--address", head.dashboard, "--working-dir", "."]
    command += ["--runtime-env", "cluster/deploy/runtime-env.yaml", "--", "python", "-m", "jobs.pipeline", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_without_the_token_nobody_gets_in(head):
    token, page = (Path(head.environment["HOME"]) / ".ray" / "auth_token").read_text(), f"{head.dashboard}/api/jobs/"
    assert rays.request(page) == 401
    assert rays.request(page, token="0" * 64) in (401, 403)
    assert rays.request(page, token=token) == 200


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

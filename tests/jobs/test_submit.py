"""The whole pipeline as users of a cluster run it: a Ray head of its own, a token, `ray job submit`, MLflow.

Slow: a head with its dashboard and agents takes ten seconds to start, each job starts a Python process for the driver,
each pool worker and each training worker, and all of them import torch.
"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.engine.session import ROOT
from cluster.engine.stage import read_manifest
from cluster.tracking.shipper import default_tracking_uri
from tests import rays
from tests.docs.pages import blocks, commands

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


def documented():
    """The words of docs/submit.md's own `ray job submit`, up to the arguments of its command."""
    code = (block for block in blocks(ROOT / "docs/submit.md") if block.kind == "code")
    (found,) = (line for block in code for line in commands(block) if "job submit" in line)
    words = shlex.split(found)
    return words[: words.index("jobs.pipeline") + 1]


def submit(head, *arguments, folder=ROOT):
    """What docs/submit.md says, from `folder`, of a head at another address."""
    return submitted(head, *documented()[-3:], *arguments, folder=folder)


def submitted(head, *command, folder=ROOT):
    """Status and log of a command that is submitted as docs/submit.md says; it is followed to the end."""
    words = [{"http://127.0.0.1:8265": head.dashboard, ".venv/bin/ray": rays.RAY}.get(w, w) for w in documented()[:-3]]
    assert head.dashboard in words
    done = subprocess.run(
        [*words, *command],
        cwd=folder,
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
    for line in ("render  ", "shard  24 accepted in ", "label  24 images in ", "evaluate  "):
        assert line in log
    own = [line for line in log.splitlines() if " pid=" not in line]  # Ray's actors complain when other Rays are about
    assert [line for line in own if "Traceback" in line] == [], log


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
    told, shown = (client.get_metric_history(run.info.run_id, "curves/loss") for run in (children["train"], parent))
    assert [metric.step for metric in told] == [1, 2]
    assert [(metric.step, metric.value) for metric in shown] == [(metric.step, metric.value) for metric in told]
    assert parent.data.params["train.steps"] == "2"
    assert {"report.html", "summary.json"} <= {f.path for f in client.list_artifacts(parent.info.run_id)}


def test_submitting_again_from_another_checkout_resumes(head, finished, tmp_path):
    """One in which a stage's code has changed, which is named; nothing is made again."""
    root, _ = finished
    for folder in ("fss", "cluster", "jobs", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "cluster/label/stage.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    status, log = submit(head, *SMALL, f"root={root}", folder=tmp_path)
    assert status == 0, log[-6000:]
    assert log.count(" is done (") == 9
    assert re.search(r"label.* by other code .* and is used as it is", log)


@pytest.mark.parametrize(
    ("command", "said", "ending"),
    [
        (  # a folder in Ray's copy of the code
            "python -m jobs.pipeline root=runs",
            "error: root: expected an absolute path inside of a Ray job, got 'runs'",
            "was stopped",
        ),
        (
            "python -m jobs.pipeline root=/tmp/refused corpus=folder corpus.root=/nowhere",
            "expected a folder of images at corpus.root=/nowhere",
            "was stopped",
        ),
        ("python -c 'raise ValueError'", "ValueError", "failed"),
    ],
    ids=["a place", "a folder that is not there", "a fault"],
)
def test_what_is_refused_is_explained_and_stopped_and_so_not_repeated(head, command, said, ending):
    """KubeRay begins again what FAILED, and only that."""
    entrypoint = yaml.safe_load((ROOT / "cluster/deploy/rayjob.yaml").read_text())["spec"]["entrypoint"]
    status, log = submitted(head, "bash", "-c", f"{command} || {entrypoint.partition('||')[2]}")
    assert said in log
    assert re.search(rf"Job '\w+' {ending}", log), log
    assert status == (ending == "failed")

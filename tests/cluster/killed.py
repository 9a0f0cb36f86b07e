"""What is left of runs that were killed, beside those that were not."""

import io
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from cluster.engine import publish
from cluster.engine.session import ROOT
from cluster.tracking.journal import read_events
from tests.cluster.crashes import CRASHES


def tiny(photos):
    """The words with which a command makes the run of `configure`."""
    return (
        *("experiment=tiny", "backbone.weights=random", "corpus=folder", f"corpus.root={photos}/JPEGImages"),
        *("corpus.shard_size=12", "tracking.enabled=false", f"dataset.root={photos}", "fold=0"),
    )


def environment(**variables):
    """That of a user's command: of Ray's and our own variables no more than all tests need, and `variables`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "FSS_"))}
    ours = ("DASHBOARD_STARTUP_TIMEOUT_S", "TRAIN_HEALTH_CHECK_INTERVAL_S", "USAGE_STATS_ENABLED", "worker_niceness")
    rays = {f"RAY_{key}": os.environ[f"RAY_{key}"] for key in ours}
    return {**kept, **rays, "PYTHONPATH": str(ROOT), **variables}


def python(*arguments, **variables):
    """A Python process in the repository."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, check=False)


def published(folder, stages=CRASHES):
    """Every file below a run's folder that a manifest of these stages names, with its bytes, and the manifests."""
    found = {}
    for path in sorted(folder.glob("*/*/manifest.json")):
        manifest = publish.read_sealed(path)
        names = [file["path"] for file in manifest["files"]]
        found |= {f"{manifest['stage']}/{n}": (path.parent / n).read_bytes() for n in (*names, "manifest.json")}
    return {name: data for name, data in found.items() if name.partition("/")[0] in stages}


def leftovers(folder):
    return [path.name for path in folder.rglob("*.tmp")]


def check_ledger(run_folder):
    """Every input once, and as many as there are photos."""
    rows = [row for path in run_folder.glob("shard/*/*.ledger.parquet")
            for row in pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()]  # fmt: skip
    assert sorted(row["path"] for row in rows) == [f"{number:06d}.jpg" for number in range(36)]
    assert {row["status"] for row in rows} == {"accepted"}


def losses(folder):
    """Step -> training loss, which a step done twice must have twice."""
    (path,) = (folder / "tracking").glob("train-*.jsonl")
    points = [e for e in read_events(path)[0] if e["kind"] == "metrics" and "train/loss" in e["values"]]
    found = {}
    for point in points:
        assert found.setdefault(point["step"], point["values"]["train/loss"]) == pytest.approx(
            point["values"]["train/loss"], rel=1e-4
        )
    return found

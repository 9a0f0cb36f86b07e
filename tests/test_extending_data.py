"""A new source and a new data set are one module and one preset each: no list is edited, and the commands take them."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from tests.pages import files_shown
from tests.places import ROOT

ADDED = files_shown("docs/extending.md")
SMALL = [
    "experiment=tiny",
    "backbone.weights=random",
    "corpus=folder",
    "corpus.shard_size=40",
    "tracking.enabled=false",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code with the files that the page shows."""
    folder = tmp_path_factory.mktemp("tree")
    for room in ("fss", "cluster", "jobs", "conf"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in ADDED.items():
        (folder / name).write_text(text.lstrip())
    return folder


@pytest.fixture(scope="module")
def cluster(ray_session):
    """Workers of the Ray that is there: commands need not start one."""
    import ray

    return [f"cluster.address={ray.get_runtime_context().gcs_address}", "cluster.workers=2"]


def run(tree, job, *arguments):
    command = [sys.executable, "-m", f"jobs.{job}", *SMALL, *arguments]
    done = subprocess.run(command, cwd=tree, env=os.environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_new_source_labels_images(tree, photos, cluster, tmp_path):
    wanted = [f"corpus.root={photos}/JPEGImages", "source=bands", "source.bands=3", f"root={tmp_path}"]
    status, told = run(tree, "label", *wanted, *cluster)
    assert status == 0, told
    manifest = json.loads((tmp_path / "tiny/label/manifest.json").read_text())
    assert manifest["counts"]["regions"] == 3 * 36
    (table,) = tmp_path.glob("tiny/label/*/*.regions.parquet")
    assert set(pq.read_table(table)["label"].to_pylist()) == {1, 2, 3}


@pytest.mark.slow
def test_a_new_data_set_is_measured_on(tree, photos, cluster, tmp_path):
    folder = tmp_path / "beside"
    folder.mkdir()
    shutil.copy(photos / "classes.json", folder)
    for mask in (photos / "SegmentationClass").glob("*.png"):
        shutil.copy(mask, folder)
        shutil.copy(photos / "JPEGImages" / f"{mask.stem}.jpg", folder)
    wanted = ["model=prototype", "dataset=beside", f"dataset.root={folder}", "dataset.parts=4", "fold=3", "shots=1"]
    status, told = run(
        tree, "evaluate", *wanted, *cluster, "episodes=4", f"root={tmp_path}/runs", f"out={tmp_path}/out"
    )
    assert status == 0, told
    figures = json.loads((tmp_path / "out/metrics.json").read_text())
    assert figures["dataset"]["name"] == "beside"


def test_their_keys_are_checked_like_all_others(tree, tmp_path):
    wrong = {
        "source.bands=1": "source.bands: expected at least 2, got 1",
        "source.clusters=9": "source.clusters: expected it unset with source.name=bands, where it does nothing",
        "dataset.parts=0": "dataset.parts: expected at least 1, got 0",
        "dataset.year=2014": "dataset.year: expected it unset with dataset.name=beside, where it does nothing",
        "model.options.dim=0": "model.options.dim: expected at least 1, got 0",
    }
    chosen = ["source=bands", "dataset=beside", "model=linear", "backbone=patches"]
    status, told = run(tree, "label", *chosen, f"root={tmp_path}", *wrong)
    assert status == 2, told
    for text in wrong.values():
        assert text in told
    assert list(tmp_path.iterdir()) == []

"""What users run, on a Ray of its own, with a bucket for root: the whole pipeline, and what comes after it."""

import shutil

import pytest

from cluster.storage import bucket
from tests.cluster import s3
from tests.cluster.crashes import CRASHES
from tests.cluster.killed import python, tiny
from tests.cluster.storage.test_runs import contents

pytestmark = [pytest.mark.slow, pytest.mark.ray]
STORES = [s3.real()]


@pytest.fixture
def arguments(photos):
    return tiny(photos)


def command(name, *arguments, cache):
    """What a command prints that ends well; its machine keeps copies in `cache`."""
    done = python("-m", f"jobs.{name}", *arguments, FSS_CACHE=str(cache))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_a_whole_run_and_what_is_made_of_it(door, machine, arguments, photos, configure, start, tiny_run, tmp_path):
    root, first, second = "root=s3://bucket/whole", tmp_path / "first", tmp_path / "second"
    told = command("pipeline", *arguments, "cluster.workers=2", root, cache=first)
    assert "s3://bucket/whole/tiny/report.html" in told
    assert str(first) not in told
    run = start(configure("s3://bucket/whole"))
    stages = [*(stage for stage in CRASHES if stage != "quality"), "train"]
    assert contents(run, stages) == contents(tiny_run, stages)
    objects = bucket.listing("bucket/whole/tiny")
    assert {"report.html", "summary.json"} <= set(objects)
    assert not [name for name in objects if "/.ray/" in name or name.endswith((".lock", ".tmp"))]

    shutil.rmtree(first)  # the machine is gone
    again = command("pipeline", *arguments, "cluster.workers=2", root, cache=second)
    assert "report.html" in again
    assert {name: about.tag for name, about in bucket.listing("bucket/whole/tiny").items() if "manifest" in name} == {
        name: about.tag for name, about in objects.items() if "manifest" in name
    }
    shown = command("config", *arguments, root, cache=second)
    assert "skip (done)" in shown
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    assert "is in MLflow" in command("sync", root, "name=tiny", store, cache=tmp_path / "third")
    drawn = ("support_box=[[8,8,60,60]]", f"support={photos}/JPEGImages/000001.jpg")
    query = (f"query={photos}/JPEGImages/000002.jpg", f"out={tmp_path}/out")
    command("predict", "model=s3://bucket/whole/tiny", *drawn, *query, cache=tmp_path / "third")
    assert (tmp_path / "out" / "000002.png").is_file()

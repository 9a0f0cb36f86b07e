"""kill -9 of workers, drivers and nodes, at every step of publishing: the same bytes as an undisturbed run's.

The slow ones start a Ray of their own, as a user's command does, or kill a process at every point there is.
"""

import io
import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from cluster.engine import publish
from cluster.engine.session import ROOT
from cluster.engine.stage import Publisher, Unit, read_file
from cluster.tracking.journal import read_events
from tests.cluster.crashes import CRASHES, REFINED_CRASHES, WORKERS
from tests.cluster.here import here
from tests.cluster.index.test_index import MODEL
from tests.cluster.refine.test_refine import LOOSE, PAIR


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


@pytest.fixture(scope="module")
def overrides(photos):
    return (
        *("experiment=tiny", "backbone.weights=random", "corpus=folder", f"corpus.root={photos}/JPEGImages"),
        *("corpus.shard_size=12", "tracking.enabled=false", f"dataset.root={photos}", "fold=0"),
    )


def environment(**variables):
    """That of a user's command: of Ray's and our own variables no more than all tests need, and `variables`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "FSS_"))}
    ours = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness")
    return {**kept, **{key: os.environ[key] for key in ours}, "PYTHONPATH": str(ROOT), **variables}


def python(*arguments, **variables):
    """A Python process in the repository."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True, check=False)


def check_chain(crashes, root, *overrides, **variables):
    """Every process of the chain dies where it should, and then the run is finished."""
    done = python("-m", "tests.cluster.crashes", "chain", root, *overrides, f"root={root}", **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("swept") == [0] * len(crashes)
    assert len(told) == sum(len(points) for names in crashes.values() for points in names.values())
    assert {point: status for point, status in told.items() if status != -9} == {}


@pytest.mark.slow
def test_a_process_killed_at_every_point_of_refining_and_of_the_index(overrides, configure, tmp_path):
    more = (*LOOSE, *PAIR, *MODEL)
    check_chain(REFINED_CRASHES, tmp_path / "killed", *overrides, *more)
    whole = here(configure(tmp_path / "whole", *more))
    whole.ensure("index")
    folders = tmp_path / "killed" / "tiny", whole.folder
    assert published(folders[0], REFINED_CRASHES) == published(folders[1], REFINED_CRASHES)
    assert leftovers(folders[0]) == []


@pytest.mark.slow
def test_a_process_killed_at_every_point_of_every_stage(copied, overrides, tmp_path):
    folder = tmp_path / "killed" / "tiny"
    check_chain(CRASHES, folder.parent, *overrides)
    copied.ensure("quality")
    assert published(folder) == published(copied.folder)
    assert leftovers(folder) == []
    check_ledger(folder)


def arm(specification):
    os.environ["FSS_FAILPOINT"] = specification


@pytest.mark.slow
def test_workers_killed_in_the_middle_of_stages(tiny_run, configure, start, pools, tmp_path):
    """At another point in each; new workers do not inherit the failpoint."""
    run = start(configure(tmp_path), pools[2])
    try:
        for stage, failpoint in WORKERS.items():
            marker = tmp_path / f"killed-{stage}"
            pools[2].on_each(arm, [f"{failpoint} {marker}"] * 2)
            run.ensure(stage)
            assert marker.exists()
    finally:
        pools[2].on_each(arm, [""] * 2)
    run.ensure("pair")
    assert published(run.folder) == published(tiny_run.folder)
    check_ledger(run.folder)


@pytest.mark.slow
def test_a_node_killed_while_it_labels(overrides, configure, start, tmp_path):
    smaller = "corpus.shard_size=4"
    done = python("-m", "tests.cluster.crashes", "node", tmp_path, *overrides, smaller, f"root={tmp_path / 'killed'}")
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["done_before"] < 9
    assert told["nodes"] == [False, True]
    undisturbed = start(configure(tmp_path / "whole", smaller))
    undisturbed.ensure("pair")
    assert published(tmp_path / "killed" / "tiny") == published(undisturbed.folder)
    check_ledger(tmp_path / "killed" / "tiny")


@pytest.fixture
def before_training(tiny_run, tmp_path):
    """A copy of the tiny run's folder without what training wrote."""
    left_out = shutil.ignore_patterns("train", "tracking")
    return shutil.copytree(tiny_run.folder, tmp_path / tiny_run.config.name, ignore=left_out)


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


@pytest.mark.slow
def test_a_node_killed_while_it_trains(tiny_run, before_training, overrides):
    root = before_training.parent
    done = python("-m", "tests.cluster.crashes", "train_node", root, *overrides, f"root={root}")
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"done_before": ["step-00000004"], "nodes": [False, True, True]}
    expected, found = losses(tiny_run.folder), losses(before_training)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_second_command_on_one_folder_refuses(tiny_run, configure, start, tmp_path):
    """The first one is a process that holds the folder; killed, it holds nothing."""
    run = start(configure(tmp_path))
    folder = run.folder / "shard" / run.identity("shard")[2]
    script = (
        "import pathlib, sys, time\n"
        "from cluster.engine import publish\n"
        "with publish.only_writer(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(300)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", script, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"another run is writing .*/shard/.* choose another name= or root="):
            run.ensure("shard")
        assert {path.name for path in folder.iterdir()} == {".lock"}
    finally:
        first.kill()
        first.wait()
    assert run.ensure("shard").files == tiny_run.manifest("shard").files


class Bytes:
    """Makes a file of the unit's payload."""

    def __call__(self, unit):
        from cluster.engine.stage import Output

        return Output({f"{unit.name}.bin": unit.payload}, {f"{unit.name}.bin": 1}, {"images": 1})


def test_a_late_writer_that_was_taken_for_dead_does_no_harm(tmp_path, monkeypatch):
    """Another attempt publishes, and finishes, between the zombie's writing and its renaming; or sweeps its file."""
    from pathlib import Path

    publisher, unit, real = Publisher(Bytes(), tmp_path), Unit("a", b"abc" * 100), Path.replace
    in_between = [publisher, lambda _: publish.sweep(tmp_path)]

    def late(self, target):
        monkeypatch.setattr(Path, "replace", real)
        before = {path.name: path.read_bytes() for path in tmp_path.rglob("a.*")}
        meanwhile(unit)
        if meanwhile is publisher:
            before = {path.name: path.read_bytes() for path in tmp_path.rglob("a.*")}
        states.append(before)
        return real(self, target)

    states = []
    for meanwhile in in_between:
        monkeypatch.setattr(Path, "replace", late)
        if meanwhile is publisher:
            assert publisher(unit) == {"images": 1}
        else:
            with pytest.raises(FileNotFoundError):  # the zombie notices; nobody listens
                publisher(unit)
        assert {path.name: path.read_bytes() for path in tmp_path.rglob("a.*")} == states[-1]
    assert len(states[0]) == 2
    record = publish.read_sealed(tmp_path / ".units" / "a.json")
    assert leftovers(tmp_path) == []
    from cluster.engine.stage import File

    assert read_file(tmp_path, File(**record["files"][0])) == b"abc" * 100

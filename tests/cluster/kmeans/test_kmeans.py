"""The kmeans stage: the same bytes whoever computes them and however often they are killed; hierarchies end to end."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from cluster.engine.stage import DamagedFileError, File
from cluster.kmeans import stage
from cluster.label.sources.clusters import read_clusters
from fss.clustering import kmeans
from fss.labelling import pseudo
from tests.fss.points import points
from tests.places import ROOT

SOURCE = ("source.clusters=4", "source.hierarchy=[24,8]", "source.iterations=3", "source.restarts=2")


@pytest.fixture(scope="module")
def sampled(configure, start, tmp_path_factory):
    """A run of which the embeddings are there."""
    run = start(configure(tmp_path_factory.mktemp("sampled")))
    run.ensure("sample")
    return run


@pytest.fixture
def copied(sampled, configure, start, tmp_path):
    """A function (pool, *overrides) -> fresh run on a copy of the embeddings."""
    shutil.copytree(sampled.folder, tmp_path / sampled.config.name, ignore=shutil.ignore_patterns("kmeans", "label"))
    return lambda pool, *overrides: start(configure(tmp_path, *overrides), pool)


def outcome(run) -> dict[str, bytes]:
    folder = run.manifest("kmeans").folder
    return {name: (folder / name).read_bytes() for name in ("clusters.safetensors", "report.json", "manifest.json")}


@pytest.fixture(scope="module")
def undisturbed(sampled, configure, start):
    run = start(configure(sampled.config.root, *SOURCE))
    run.ensure("kmeans")
    return outcome(run)


def test_chunks_are_consecutive_files_of_enough_points():
    files = [File(f"{number}.npy", count, 0, "") for number, count in enumerate([5, 1, 4, 9, 2])]
    found = stage.chunks(files, 5)
    assert [[file.count for file in chunk] for chunk in found] == [[5], [1, 4], [9], [2]]
    assert stage.chunks(files, 99) == [tuple(files)]
    assert stage.chunks([], 5) == []


def test_a_hierarchy_labels_with_its_coarsest_level(undisturbed, sampled, configure, start):
    run = start(configure(sampled.config.root, *SOURCE))
    run.ensure("label")
    found = read_clusters(run.manifest("kmeans"))
    assert found.centroids.shape[0] == 24
    assert found.parents.shape == (24,)
    assert set(found.parents) <= set(range(4))
    report = json.loads(undisturbed["report.json"])
    assert len(report["sizes"]) == 4
    assert sum(report["sizes"]) == report["points"]
    assert len(report["restarts"]) == 2
    assert report["inertia"][-1] == min(report["restarts"])
    labels = {int(n) for f in run.manifest("label").named(".regions.parquet") for n in _labels(run, f)}
    assert labels <= set(range(4))
    assert len(labels) > 1


def _labels(run, file):
    import pyarrow.parquet as pq

    return pq.read_table(run.manifest("label").folder / file.path)["label"].to_pylist()


def test_two_workers_and_no_memory_make_the_same_bytes(undisturbed, copied, pools):
    run = copied(pools[2], *SOURCE, "cluster.memory_gib=0")
    run.ensure("kmeans")
    assert run.fresh == ["kmeans"]
    assert outcome(run) == undisturbed


_KILLED = """
import os, sys
from cluster.engine import publish
from cluster.engine.run import Run
from cluster.stages import STAGES
from jobs._config import load
from tests.cluster.here import Here
write, count = publish.write_bytes, 0
def dying(path, data):
    global count
    if path.name == "state":
        count += 1
        if count == int(sys.argv[1]):
            os.kill(os.getpid(), 9)
    return write(path, data)
publish.write_bytes = dying
run = Run(load(sys.argv[2:]), STAGES)
run.__dict__["pool"] = Here()
run.ensure("kmeans")
"""


def test_a_driver_killed_twice_ends_with_the_same_bytes(undisturbed, copied, photos):
    """Before its 3rd iteration is written down, then, going on from the 2nd, before the 5th: in another restart."""
    run = copied(None, *SOURCE)
    overrides = ["experiment=tiny", "backbone.weights=random", "corpus=folder", f"corpus.root={photos}/JPEGImages"]
    overrides += ["corpus.shard_size=12", "tracking.enabled=false", f"root={run.config.root}", *SOURCE]
    state = run.folder / "kmeans" / run.identity("kmeans")[2] / ".lloyd" / "state"
    for write, iterations in ((3, (0, 2)), (3, (1, 1))):
        arguments = [sys.executable, "-c", _KILLED, str(write), *overrides]
        done = subprocess.run(arguments, cwd=ROOT, check=False, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        found = stage.read_state(state)
        assert (found.restart, len(found.now.history)) == iterations
    run.ensure("kmeans")
    assert outcome(run) == undisturbed


def test_a_worker_killed_at_an_iteration_changes_nothing(undisturbed, copied, pools, tmp_path, monkeypatch):
    real, marker = stage.PartialSums.__call__, tmp_path / "killed"

    def deadly(self, chunk):
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, chunk)

    class Deadly(stage.PartialSums):
        __call__ = deadly

    monkeypatch.setattr(stage, "PartialSums", Deadly)
    run = copied(pools[2], *SOURCE)
    run.ensure("kmeans")
    assert marker.exists()
    assert outcome(run) == undisturbed


def test_states_are_kept_to_the_bit(tmp_path, caplog):
    rows = points(40)
    recipe = kmeans.LloydOptions(3, seed=0, iterations=3, restarts=2)
    for state in kmeans.lloyd(lambda c: kmeans.partial_sums(rows, c), lambda seed: rows[:3], recipe):
        path = tmp_path / "state"
        path.write_bytes(stage.write_state(state))
        found = stage.read_state(path)
        assert stage.write_state(found) == path.read_bytes()
        assert (found.now.history, found.inertias) == (state.now.history, state.inertias)
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:50])
    assert stage.read_state(path) is None
    whole[-1] ^= 1
    path.write_bytes(whole)
    assert stage.read_state(path) is None
    assert "is damaged" in caplog.text
    assert stage.read_state(tmp_path / "none") is None


def test_a_worker_keeps_what_fits(tmp_path):
    """Of two chunks of 16 points, a memory of one keeps the first and reads the second again."""
    files, centre = [], np.zeros(5)
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", points(16, seed=number))
        data = (tmp_path / f"{number}.npy").read_bytes()
        files.append(stage.write_file(tmp_path, f"{number}.npy", data, 16))
    centroids = pseudo.centred(points(3, seed=9), centre)
    stage._forget(None)
    one = kmeans.Part(points(16))
    one.sums(centroids)
    function = stage.PartialSums(tmp_path, centre, centroids, 1.5 * one.nbytes / 2**30)
    found = [function((file,)) for file in files]
    assert [key[1][0].path for key in stage._kept] == ["0.npy"]
    assert [sums.counts.sum() for sums in found] == [16, 16]
    (tmp_path / "0.npy").unlink()
    again = stage.PartialSums(tmp_path, centre, centroids, 0)
    assert np.array_equal(again((files[0],)).totals, found[0].totals)
    (tmp_path / "1.npy").unlink()
    with pytest.raises(DamagedFileError):
        again((files[1],))
    stage._forget(None)
    assert not stage._kept


def test_hierarchies_and_tolerances_that_cannot_work_are_refused(configure, tmp_path):
    wanted = r"source.hierarchy: expected falling numbers of clusters, all above source.clusters=6, got \[9, 6\]"
    with pytest.raises(ValueError, match=wanted):
        configure(tmp_path, "source.hierarchy=[9,6]")
    with pytest.raises(ValueError, match=r"source.tolerance: expected a share in \[0, 1\), got 1"):
        configure(tmp_path, "source.tolerance=1")
    assert configure(tmp_path, "source.hierarchy=[20,9]").source.hierarchy == [20, 9]

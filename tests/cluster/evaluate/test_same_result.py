"""The same integers whoever computed them, however often they were killed."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

from cluster.engine.session import ROOT
from cluster.evaluate import stage
from cluster.evaluate.measure import RunBlock
from fss import shards
from tests.cluster.evaluate.results import BLOCK, OPTIONS, ROWS, evaluation_images, feature_files, named_by, rows


def assert_same(found, expected):
    assert {f.path: f.sha256 for f in found.files} == {f.path: f.sha256 for f in expected.files}
    assert (found.folder / "manifest.json").read_bytes() == (expected.folder / "manifest.json").read_bytes()


def test_this_process_and_two_workers_agree_to_the_last_integer(measured, configure, start, pools, tmp_path):
    assert len(list(measured.folder.glob("rows/*.parquet"))) > 4
    assert_same(start(configure(tmp_path, *OPTIONS), pools[2]).ensure("evaluate"), measured)
    assert len(rows(measured)) == ROWS


def test_without_stored_features_the_integers_are_the_same(measured, configure, start, tmp_path):
    run = start(configure(tmp_path, *OPTIONS, "cluster.features_gib=0"))
    assert_same(run.ensure("evaluate"), measured)
    assert not feature_files(tmp_path)


_KILLED = f"""
import os, pickle, sys
from pathlib import Path
from cluster.evaluate.measure import RunBlock
from cluster.engine.run import Run
from cluster.evaluate import units
from cluster.stages import STAGES
from tests.cluster.here import Here
units._BLOCK = {BLOCK}
class Dies(Here):
    def map(self, publisher, units):
        for index, unit in enumerate(units):
            if isinstance(publisher.function, RunBlock) and index == 2:
                os.kill(os.getpid(), 9)
            yield index, publisher(unit)
run = Run(pickle.loads(Path(sys.argv[1]).read_bytes()), STAGES)
run.__dict__["pool"] = Dies()
run.ensure("evaluate")
"""


class Dies(RunBlock):
    """A worker that is killed with a block in its hands, once."""

    def __call__(self, unit):
        output = super().__call__(unit)
        marker = Path(self.cache.folder) / "killed"
        if unit.name == "block-0000004" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return output


def test_killed_and_resumed_is_as_if_nothing_had_happened(measured, configure, start, pools, tmp_path, monkeypatch):
    """First the driver is killed after two blocks; then a worker of the run that goes on."""
    config = configure(tmp_path / "runs", *OPTIONS)
    (tmp_path / "config").write_bytes(pickle.dumps(config))
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "config")]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    run = start(config, pools[2])
    folder = run.folder / "evaluate" / run.identity("evaluate")[2]
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("rows/*.parquet")}
    assert sorted(path.stem for path in kept) == ["block-0000000", "block-0000001"]
    assert not (folder / "manifest.json").exists()
    monkeypatch.setattr(stage, "RunBlock", Dies)
    assert_same(run.ensure("evaluate"), measured)
    assert (tmp_path / "runs/features/killed").exists()
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # not done again


def test_lost_files_are_made_again(measured, configure, start, root):
    before = {file.path: file.sha256 for file in measured.files}
    lost = [measured.folder / name for name in ("rows/block-0000001.parquet", "episodes.parquet")]
    lost += sorted(measured.folder.glob("predictions/**/000003.png"))[:1]
    for path in lost:
        path.unlink()
    run = start(configure(root, *OPTIONS))
    assert {file.path: file.sha256 for file in run.ensure("evaluate").files} == before
    assert run.fresh == ["evaluate"]
    assert all(path.is_file() for path in lost)


def test_features_are_computed_once(measured, configure, start, photos, root, tmp_path):
    """Later evaluations find what earlier ones stored, wherever they run; only images that did not occur are added."""
    before = feature_files(root)
    other = ("model=smoothed", "fold=2", "shots=3", "seeds=[7,8]", "episodes=30", "dataset.min_area=50")
    found = start(configure(tmp_path, *other, f"cluster.features={root}/features")).ensure("evaluate")
    after = feature_files(root)
    assert before.items() <= after.items()  # the times are those of before
    occurring = named_by(rows(measured)) | named_by(rows(found))
    images = {shards.sha256((photos / "JPEGImages" / f"{n}.jpg").read_bytes()) for n in evaluation_images(photos)}
    assert set(after) <= images
    hashes = {shards.sha256((photos / "JPEGImages" / f"{name}.jpg").read_bytes()) for name in occurring}
    assert set(after) >= hashes
    assert len(hashes) > 15
    assert not feature_files(tmp_path)

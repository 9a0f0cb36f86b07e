"""A disk that is full in the middle of a stage: a plain error, nothing half-written; with room again it goes on."""

import json
import subprocess
import sys

import pytest

from jobs._config import load
from tests.cluster.here import here
from tests.cluster.killed import check_ledger, environment, published, tiny
from tests.places import ROOT

APART = ("unshare", "--mount")
STAGES = ("shard", "sample", "kmeans", "label", "quality", "pair", "train", "evaluate")
SCENES = ("experiment=tiny", "backbone.weights=random", "corpus.scenes=12", "corpus.scenes_val=4")


def may_mount():
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_root = "a small file system of one's own needs root, and the program unshare"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not may_mount(), reason=needs_root)]


@pytest.fixture
def fill(tmp_path):
    """A function (stages, the folder of a whole run, its words): the folder of one whose disk was full in each."""

    def on(stages, whole, words):
        disk, saved = tmp_path / "disk", tmp_path / "saved"
        disk.mkdir()
        command = [*APART, sys.executable, "-m", "tests.cluster.full", ",".join(stages), disk, whole, saved, *words]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads(done.stdout.splitlines()[-1])
        assert list(told) == list(stages)
        for stage, one in told.items():
            assert "No space left on device" in one["said"], stage
            assert one["left"] == [], stage
        return saved

    return on


def test_every_stage_says_that_the_disk_is_full_and_goes_on_after_it(copied, photos, fill):
    copied.ensure("evaluate")
    saved = fill(STAGES, copied.folder, tiny(photos))
    assert published(saved, STAGES) == published(copied.folder, STAGES)
    check_ledger(saved)


def scenes(run):
    return {path.name: path.read_bytes() for path in run.glob("render/*/*/*") if path.parent.name != "hashes"}


def test_scenes_that_are_drawn_say_that_the_disk_is_full_and_are_drawn_after_it(fill, tmp_path):
    run = here(load([*SCENES, f"root={tmp_path}"]))
    run.ensure("render")
    saved = fill(["render"], run.folder, SCENES)
    assert published(saved, ["render"]) == published(run.folder, ["render"])
    assert len(scenes(saved)) > 2 * (12 + 4)
    assert scenes(saved) == scenes(run.folder)

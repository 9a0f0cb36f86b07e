"""A disk that is full in the middle of a stage: a plain error, nothing half-written; with room again it goes on."""

import json
import subprocess
import sys

import pytest

from tests.cluster import full
from tests.cluster.killed import check_ledger, environment, published, tiny
from tests.places import ROOT

APART = ("unshare", "--mount")


def may_mount():
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="a small file system of one's own needs root, and the program unshare")
def test_every_stage_says_that_the_disk_is_full_and_goes_on_after_it(copied, photos, tmp_path):
    copied.ensure("evaluate")
    disk, saved = tmp_path / "disk", tmp_path / "saved"
    disk.mkdir()
    command = [*APART, sys.executable, "-m", "tests.cluster.full", disk, copied.folder, saved, *tiny(photos)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert list(told) == list(full.STAGES)
    for stage, one in told.items():
        assert "No space left on device" in one["said"], stage
        assert one["left"] == [], stage
    assert published(saved, full.STAGES) == published(copied.folder, full.STAGES)
    check_ledger(saved)

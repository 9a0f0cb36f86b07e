"""kill -9 of workers and of nodes of a real Ray: the same bytes as an undisturbed run's."""

import json
import os
import shutil

import pytest

from tests.cluster.crashes import WORKERS
from tests.cluster.killed import check_ledger, leftovers, losses, published, python, tiny

pytestmark = pytest.mark.slow


def arm(specification):
    os.environ["FSS_FAILPOINT"] = specification


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
    assert leftovers(run.folder) == []
    check_ledger(run.folder)


def test_a_node_killed_while_it_labels(photos, configure, start, tmp_path):
    smaller = "corpus.shard_size=4"
    done = python(
        "-m", "tests.cluster.crashes", "node", tmp_path, *tiny(photos), smaller, f"root={tmp_path / 'killed'}"
    )
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


def test_a_node_killed_while_it_trains(tiny_run, before_training, photos):
    root = before_training.parent
    done = python("-m", "tests.cluster.crashes", "train_node", root, *tiny(photos), f"root={root}")
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"done_before": ["step-00000004"], "nodes": [False, True, True]}
    expected, found = losses(tiny_run.folder), losses(before_training)
    assert found == pytest.approx(expected, rel=1e-4)

"""What a cluster holds, and may grow to; a run that begins where there is no machine."""

import json
import logging
import math
import shutil
import subprocess
import sys

import pytest
import yaml

from cluster.config import ClusterConfig
from cluster.engine import pool, room
from cluster.engine.room import Limit, NodeGroup, Room
from cluster.engine.session import ROOT
from tests import rays
from tests.cluster import growing
from tests.cluster.killed import tiny

HEAD = NodeGroup(1, {"object_store_memory": 1e9})
GPUS = yaml.safe_load((ROOT / "cluster/deploy/gpu-cluster.yaml").read_text())


def test_a_process_fits_one_machine_not_several_together():
    there = Room((NodeGroup(2, {"CPU": 4.0, "GPU": 1.0}), HEAD))
    assert there.fits({"CPU": 4.0}) == 2
    assert there.fits({"CPU": 3.0}) == 2
    assert there.fits({"CPU": 5.0}) == 0
    assert there.fits({"CPU": 1.0, "GPU": 0.1}) == 8
    assert there.fits({"CPU": 0.1, "GPU": 0.1}) == 20


def test_an_autoscaler_may_add_so_much():
    limit = room.configured(GPUS)
    assert limit == Limit((NodeGroup(4, {"CPU": 48, "GPU": 4}),), 4)
    zero = Room((HEAD,), limit)
    assert zero.grows
    assert zero.fits({"CPU": 8.0, "GPU": 1.0}) == 0
    assert zero.may_fit({"CPU": 8.0, "GPU": 1.0}) == 16
    assert zero.may_fit({"CPU": 49.0}) == 0
    assert Room((HEAD,), None).may_fit({"CPU": 1.0}) is None


def test_it_adds_the_larger_machines_first_and_no_more_than_it_may_together():
    kinds = (NodeGroup(4, {"CPU": 2.0}), NodeGroup(1, {"CPU": 16.0}))
    working = NodeGroup(1, {"CPU": 3.0, "node:__internal_head__": 1.0})
    assert Room((working, NodeGroup(1, {"CPU": 2.0})), Limit(kinds, 3)).may_fit({"CPU": 1.0}) == 23
    assert Room((HEAD,), Limit(kinds, 3)).may_fit({"CPU": 1.0}) == 20
    assert Room((HEAD,), Limit(kinds)).may_fit({"CPU": 1.0}) == 24
    boundless = {"head_node_type": "head", "available_node_types": {"head": {}, "any": {"resources": {"CPU": 2}}}}
    assert room.configured(boundless).kinds == (NodeGroup(math.inf, {"CPU": 2}),)
    assert room.configured({}) == Limit(())


def test_a_pool_is_as_large_as_the_cluster_may_become(caplog):
    zero, eight = Room((HEAD,), room.configured(GPUS)), {"cpus_per_worker": 8, "gpus_per_worker": 1}
    assert pool._size(ClusterConfig(**eight), zero) == 16
    assert pool._size(ClusterConfig(workers=3, **eight), zero) == 3
    assert not caplog.records
    assert pool._size(ClusterConfig(workers=17, **eight), zero) == 17
    assert "cluster.workers=17, but at most 16 fit" in caplog.text
    with pytest.raises(ValueError, match=r"takes 64 CPUs and 0 GPUs, got room for 0 at most on machines of .*48 CPUs"):
        pool._size(ClusterConfig(cpus_per_worker=64), zero)


def test_where_nobody_knows_how_far_a_cluster_grows_it_must_be_said():
    unknown = Room((HEAD,), None)
    assert pool._size(ClusterConfig(workers=3), unknown) == 3
    with pytest.raises(ValueError, match=r"does not say how far it grows, got none; set cluster.workers=NUMBER"):
        pool._size(ClusterConfig(), unknown)
    assert pool._size(ClusterConfig(), Room((NodeGroup(1, {"CPU": 2.0}),), None)) == 2


def test_training_has_resources_of_its_own():
    """Shards by CPUs alone, training on GPUs of other machines; and as before where it is not said."""
    assert room.training_worker(ClusterConfig(train_gpus=1)) == {"CPU": 1.0, "GPU": 1.0}
    assert room.worker(ClusterConfig(train_gpus=1)) == {"CPU": 1.0}
    assert room.training_worker(ClusterConfig(gpus_per_worker=0.5)) == {"CPU": 1.0, "GPU": 1.0}
    assert room.training_worker(ClusterConfig(gpus_per_worker=1, train_gpus=0)) == {"CPU": 1.0}


def test_what_is_waited_for_is_said_again_and_again(ray_session, monkeypatch, caplog):
    import ray

    monkeypatch.setattr(room, "_SOON", 0.05)
    monkeypatch.setattr(room, "_AGAIN", 0.05)
    never = ray.remote(num_cpus=1000)(lambda: None).remote()
    with caplog.at_level(logging.WARNING):
        assert list(room.awaited([never], lambda: "a large machine", timeout=0.4)) == []
    ray.cancel(never)
    assert len(caplog.messages) > 1
    assert caplog.messages[0].startswith("waiting for a large machine since 0:00; of the cluster's 6 CPUs and 0 GPUs, ")


@pytest.mark.slow
def test_a_run_that_begins_without_a_machine(tiny_run, photos, tmp_path):
    """Machines come for the first worker, stay while there is work, and go when there is none; of three labels are left
    to make, on machines that hold two workers each."""
    left_out = shutil.ignore_patterns("label", "quality", "pair", "train", "tracking")
    shutil.copytree(tiny_run.folder, tmp_path / "runs/tiny", ignore=left_out)
    wanted = (*tiny(photos), "train.steps=2", f"root={tmp_path}/runs")
    home = tmp_path / "home"
    home.mkdir()
    faked = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with rays.head(home, "--num-cpus", "0", scaling=growing.scaling, **faked) as head:
        command = [sys.executable, "-m", "tests.cluster.growing", *wanted]
        environment = {**head.environment, "RAY_ADDRESS": head.address, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"before": 0, "most": 2, "after": 0}
    assert "waiting for a CPU, to look at what workers will need since" in done.stderr
    (model,) = (tmp_path / "runs").glob("tiny/train/*/model/model.json")
    assert model.stat().st_size > 0
    assert not list((tmp_path / "runs/tiny").glob(".seen-*"))

"""Runs that are killed, as processes of their own: python -m tests.cluster.crashes HOW FOLDER override...

`chain` forks a process for every failpoint of every stage, which dies there, one after the other on one folder, and
then finishes the run; where masks are refined, of the stages that refining adds to or changes; in a bucket, at the
points of each kind of writer. `node` kills a Ray node while the label stage is at work, `train_node` one that trains.
All print what happened as JSON.
"""

import contextlib
import importlib
import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from cluster.engine import pool
from cluster.engine.run import Run
from cluster.stages import STAGES
from cluster.storage import bucket
from jobs._config import load
from tests.cluster.here import here

POINTS = ("half_written", "before_rename", "after_rename")
HALF, BEFORE, AFTER = ((point,) for point in POINTS)
#: For each stage what it publishes, in order, and the points at which a process dies: all three of every kind of writer
#: (a file of a unit, a file made late, a driver's file, a record, a manifest), one of the same in other stages.
CRASHES = {
    "shard": {
        "chunk-*.rows": HALF,
        "bucket-*.rows": BEFORE,
        "corpus-*.tar": POINTS,
        "corpus-*.ledger.parquet": AFTER,
        "corpus-*.json": POINTS,
        "timing.json": AFTER,
        "manifest.json": POINTS,
    },
    "sample": {"part-*.npy": HALF, "part-*.json": AFTER, "manifest.json": BEFORE},
    "kmeans": {"state": POINTS, "clusters.safetensors": POINTS, "report.json": BEFORE},
    "label": {"labels-*.tar": AFTER, "labels-*.parquet": BEFORE, "part-*.json": HALF, "manifest.json": HALF},
    "quality": {"sums-*.json": HALF, "crops-*.tar": AFTER, "quality.json": BEFORE, "atlas.jpg": AFTER},
    "pair": {"tasks-*.tar": POINTS, "holdout-*.tar": AFTER, "usage-*.parquet": POINTS, "manifest.json": BEFORE},
}
#: Where masks are refined and a head looks up regions: what `label` writes then besides, and the stages of their own.
REFINED_CRASHES = {
    "label": {"directions.npy": HALF, "labels-*.fields.npy": BEFORE, "part-*.json": AFTER},
    "refine": {"labels-*.tar": HALF, "labels-*.regions.parquet": AFTER, "0*.json": POINTS, "manifest.json": BEFORE},
    "index": {
        "part-*.npy": POINTS,
        "part-*.json": BEFORE,
        "model.safetensors": HALF,
        "model.json": AFTER,
        "manifest.json": HALF,
    },
}
#: In a bucket, where the one function by which all of them write is another, and nothing else.
STORED_CRASHES = {
    stage: {name: points for name, points in names.items() if points == POINTS} for stage, names in CRASHES.items()
}
#: What stages import when they need it: here once, before dozens of processes are forked.
LATE = ("faiss", "pandas", "s3fs", "scipy.cluster.hierarchy", "scipy.ndimage")
#: Points at which a worker dies: a file, a record, a file made late, in stages of one step and of several.
WORKERS = {
    "shard": "half_written corpus-*.tar",
    "label": "before_rename part-*.json",
    "pair": "after_rename tasks-*.tar",
}


def forked(config, stage, failpoint=""):
    """The status of a child that brings the run up to `stage`, or dies at the failpoint."""
    child = os.fork()
    if not child:
        os.environ["FSS_FAILPOINT"] = failpoint
        sys.stdout = io.StringIO()
        try:
            here(config).ensure(stage)
        except BaseException as error:
            print(f"{stage} {failpoint}: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crashes_of(config):
    """The points at which the run's processes die, by stage and file."""
    if bucket.is_address(config.root):
        return STORED_CRASHES
    return REFINED_CRASHES if config.refine.on else CRASHES


def chain(folder, arguments):
    """Die at each point of each stage, then finish."""
    for name in LATE:
        importlib.import_module(name)
    told, config = {}, load(arguments)
    crashes = crashes_of(config)
    for stage, names in crashes.items():
        for failpoint in (f"{point} {name}" for name, points in names.items() for point in points):
            told[f"{stage} {failpoint}"] = forked(config, stage, failpoint)
    told["swept"] = [forked(config, stage) for stage in crashes]
    return told


@contextlib.contextmanager
def cluster_of(head_cpus, others, told):
    """A head and other nodes of one CPU each, joined; afterwards `told` says which nodes were alive in the end."""
    import ray
    from ray.cluster_utils import Cluster

    from cluster.engine.session import VARIABLES

    variables = VARIABLES | {"PYTHONPATH": os.environ["PYTHONPATH"]}
    hasty = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": head_cpus, "include_dashboard": False, "_system_config": hasty}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(others)]
    ray.init(address=cluster.address, runtime_env={"env_vars": variables}, logging_level="ERROR", log_to_driver=False)
    yield cluster, nodes
    told["nodes"] = sorted(one["Alive"] for one in ray.nodes())
    ray.shutdown()
    cluster.shutdown()


def node(folder, arguments):
    """Kill one of two nodes when the first labels are there, and do not replace it."""
    told, pool._PATIENCE = {}, 1.5
    with cluster_of(1, 1, told) as (cluster, (doomed,)):
        _label_with_a_loss(arguments, cluster, doomed, told)
    return told


def _label_with_a_loss(arguments, cluster, doomed, told):
    run = Run(load([*arguments, "cluster.workers=2"]), STAGES)

    def kill():
        labels = run.folder / "label"
        while not list(labels.glob("*/.units/*.json")):
            time.sleep(0.02)
        told["done_before"] = len(list(labels.glob("*/.units/*.json")))
        cluster.remove_node(doomed, allow_graceful=False)

    run.ensure("kmeans")
    killer = threading.Thread(target=kill)
    killer.start()
    run.ensure("pair")
    killer.join()
    run.release_pool()


def train_node(folder, arguments):
    """Kill a training node after the first checkpoint; of two others, one trains and one is free."""
    told = {}
    with cluster_of(1, 2, told) as (cluster, nodes):
        _train_with_a_loss(arguments, cluster, nodes, told)
    return told


def _train_with_a_loss(arguments, cluster, nodes, told):
    import ray

    run = here(load([*arguments, "cluster.train_workers=2", "train.max_failures=2"]))

    def kill():
        while not list(run.folder.glob("train/*/checkpoints/step-*/meta.json")):
            time.sleep(0.01)
        told["done_before"] = [path.parent.name for path in run.folder.glob("train/*/checkpoints/step-*/meta.json")]
        free = ray._private.state.available_resources_per_node()
        doomed = next(node for node in nodes if not free[node.node_id].get("CPU"))
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    run.ensure("train")
    killer.join()


if __name__ == "__main__":
    signal.alarm(1500)  # nothing of it outlives a test that was given up
    ways = {"chain": chain, "node": node, "train_node": train_node}
    print(json.dumps(ways[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:])))

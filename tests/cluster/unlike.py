"""A cluster of machines that compute differently, as a process of its own: python -m tests.cluster.unlike FOLDER

Two compute as this processor can, one as an older one does. Prints as JSON on which the units of stages were done.
"""

import json
import os
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from cluster.config import ClusterConfig
from cluster.engine import compute
from cluster.engine.pool import Pool
from cluster.engine.session import VARIABLES


def processor(_):
    time.sleep(0.1)  # so that all have some
    return compute.here()["processor"]


def seen(pool, folder):
    """The processors that did the units of the stage of this folder."""
    pool.serve(folder)
    return sorted({found for _, found in pool.map(processor, range(12))})


def stages(address, folder):
    told = {"new": compute.here()["processor"]}
    config = ClusterConfig(workers=3, address=address)
    with Pool(config) as pool:
        told["first"] = seen(pool, folder / "label/1")
        (old,) = {one["processor"] for one in pool._workers._classes.values()} - {told["new"]}
        told["old"] = old
        compute.note(folder / "label/2", {**compute.here(), "processor": old})
        told["begun on old"] = seen(pool, folder / "label/2")
        compute.note(folder / "label/3", {**compute.here(), "processor": "abacus"})
        try:
            seen(pool, folder / "label/3")
        except ValueError as error:
            told["none is there"] = str(error)
    with Pool(ClusterConfig(workers=3, address=address, mixed=True)) as pool:
        pool.serve(folder / "label/4")
        told["mixed"] = sorted({*pool.on_each(processor, range(12))})
    return told


def main(folder):
    variables = VARIABLES | {"PYTHONPATH": os.environ["PYTHONPATH"]}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for kind in ({}, {}, {"ATEN_CPU_CAPABILITY": "default"}):
        cluster.add_node(num_cpus=1, env_vars=kind)
    ray.init(address=cluster.address, runtime_env={"env_vars": variables}, logging_level="ERROR", log_to_driver=False)
    print(json.dumps(stages(cluster.address, folder)))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A run on a cluster without a machine, as a process of its own: python -m tests.cluster.growing override...

Its autoscaler is Ray's own with machines that are processes. Prints, as JSON, the machines that were there at most, and
those that are left when the last has had nothing to do for a while.
"""

import json
import signal
import sys
import threading
import time

import ray

from cluster.engine.run import Run
from cluster.stages import STAGES
from jobs._config import load

HEAD = "f" * 51 + "00000"


def scaling(address):
    """The configuration of an autoscaler that may add two machines of two CPUs to a head at `address`."""
    machine = {"resources": {"CPU": 2, "object_store_memory": 100 * 2**20}, "node_config": {}}
    empty = [f"{when}_commands" for when in ("initialization", "setup", "head_setup", "worker_setup")]
    empty += ["head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"]
    provider = {"type": "fake_multinode", "head_node_id": HEAD, "gcs_address": address, "launch_multiple": True}
    provider |= {"use_node_id_as_ip": True, "disable_node_updaters": True}  # machines that are processes of this one
    return json.dumps(
        {
            "cluster_name": "growing",
            "max_workers": 2,
            "idle_timeout_minutes": 0.2,
            "upscaling_speed": 100.0,
            "provider": provider,
            "auth": {"ssh_user": "nobody"},
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "machine": {**machine, "min_workers": 0, "max_workers": 2},
            },
            "file_mounts": {},
            **{key: [] for key in empty},
        }
    )


def machines():
    """Those that are there beside the head."""
    return sum(node["Alive"] and "CPU" in node["Resources"] for node in ray.nodes())


def main(arguments):
    most, over = [0], threading.Event()

    def watch():
        while not over.wait(0.2):
            most.append(machines())

    with Run(load(arguments), STAGES) as run:
        run.ray()
        before, watcher = machines(), threading.Thread(target=watch)
        watcher.start()
        run.ensure("train")
        run.release_pool()
        over.set()
        watcher.join()
        while machines():
            time.sleep(0.2)
        print(json.dumps({"before": before, "most": max(most), "after": machines()}))


if __name__ == "__main__":
    signal.alarm(600)  # nothing of it outlives a test that was given up
    main(sys.argv[1:])

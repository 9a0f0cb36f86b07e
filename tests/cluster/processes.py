"""Training by processes of this machine, without Ray: the same loop, started in no time.

`train` stands in for `cluster.training.loop.train`, whose workers Ray Train starts in some 15 seconds; that both make
the same bytes is shown by training/test_ray_train.py. Processes are forked from a server that has imported what they
need and that has no threads; it ends with the process that asked for it.
"""

import contextlib
import multiprocessing
import os
import tempfile
from multiprocessing import connection
from pathlib import Path

import torch
from ray import cloudpickle

from cluster.training import loop

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.cluster.preloaded"])


def train(job, cluster, max_failures=0):
    """Run `job` to its end on `cluster.train_workers` processes, all started again when one fails."""
    for left in range(max_failures, -1, -1):
        failure = _attempt(cloudpickle.dumps(job), cluster.train_workers)
        if failure is None:
            return
        if not left:
            raise loop.stopped(job, f"{type(failure).__name__}: {failure}") from failure


def _attempt(job, world):
    """None, or why the first process that failed did so; the others are killed then."""
    with tempfile.TemporaryDirectory() as folder:
        workers = [_SERVER.Process(target=_work, args=(job, rank, world, folder)) for rank in range(world)]
        for worker in workers:
            worker.start()
        try:
            failed = _first_failure(workers)
            return None if failed is None else _reason(Path(folder, str(workers.index(failed))), failed.exitcode)
        finally:
            for worker in workers:
                worker.kill()
                worker.join()


def _first_failure(workers):
    """The worker that ended badly first, or None once all have ended well."""
    running = {worker.sentinel: worker for worker in workers}
    while running:
        for ended in connection.wait(list(running)):
            worker = running.pop(ended)
            worker.join()
            if worker.exitcode:
                return worker
    return None


def _reason(told, status):
    with contextlib.suppress(FileNotFoundError):
        return cloudpickle.loads(told.read_bytes())
    return RuntimeError(f"a worker ended with status {status}")


def _work(job, rank, world, folder):
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
        loop.work(cloudpickle.loads(job), rank, world)
        torch.distributed.destroy_process_group()
    except Exception as error:
        Path(folder, str(rank)).write_bytes(cloudpickle.dumps(error))
        raise

"""What keeping a run in a bucket costs: `label` and a training's steps from S3, beside the same from a folder.

    python -m benchmarks.bucket [--works label train] [--images 96] [--rounds 5] [--delays 0 20 50]
        [--store moto] [--json FILE] [key=value ...]

The worker is this process, without Ray. The store is on this machine too: moto's, which waits so many milliseconds
before each answer, or Ceph's, which does not wait and must be installed. The store's CPU seconds, which the worker
lacks where cores are few, stand beside the others. No copy of what is read is kept here. A round takes each place in
turn, so all meet what else the machine does. A ratio is bucket / folder: 1 is equal speed. Images are small rendered
ones in shards of 24: a shard takes a second or two, so the store weighs more than with large ones.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import torch

from cluster.engine import compute, publish
from cluster.engine.run import Run
from cluster.engine.workers import Worker
from cluster.stages import STAGES
from cluster.storage import bucket, paths
from cluster.train import stage as training
from cluster.training import loop
from jobs._config import load

#: Of a run before it trains: what stages read while they are measured.
_READ = ("shard", "pair")


def _serve(waits: Any, port: Any) -> None:
    """Be the store, whose port goes into the queue `port`; each answer waits for the seconds that `waits` holds."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: Any) -> None:
            pass

    store = DomainDispatcherApplication(create_backend_app)

    def late(environ: Any, start_response: Any) -> Any:
        time.sleep(waits.value)
        return store(environ, start_response)

    server = make_server("127.0.0.1", 0, late, threaded=True, request_handler=Quiet)
    port.put(server.port)
    server.serve_forever()


class Alone:
    """A pool whose only worker is this process."""

    size = present = 1

    def __init__(self) -> None:
        self._worker = Worker(1, None)

    def map(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """As `Pool.map`, but in order, and what a unit raises is raised."""
        return enumerate(self.each(function, units))

    def each(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[Any]:
        """As `Pool.each`."""
        return (self._worker.run(function, unit) for unit in units)

    def on_all(self, function: Callable[[Any], Any]) -> None:
        """As `Pool.on_all`."""
        self._worker.run(function, None)

    def serve(self, folder: Path) -> None:
        """As `Pool.serve`: this process's compute class makes the stage."""
        compute.note(folder, compute.here())

    def rest(self) -> None:
        """Nothing is lent."""


@dataclass(frozen=True)
class Store:
    """A store's processes, where it answers, the id and the secret of a login there, and how long it waits."""

    processes: Sequence[psutil.Process]
    address: str
    login: tuple[str, str]
    waits: Any

    def busy(self) -> float:
        """Seconds of CPU so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self.processes)


@contextlib.contextmanager
def _moto() -> Iterator[Store]:
    context = multiprocessing.get_context("spawn")
    waits, port = context.Value("d", 0.0), context.Queue()
    server = context.Process(target=_serve, args=(waits, port), daemon=True)
    server.start()
    try:
        yield Store([psutil.Process(server.pid)], f"http://127.0.0.1:{port.get()}", ("any", "any"), waits)
    finally:
        server.kill()
        server.join()


@contextlib.contextmanager
def _ceph() -> Iterator[Store]:
    from tests import ceph, rays

    with ceph.Store(rays.free_ports(2)) as one:
        yield Store(one.processes(), one.address, (ceph.ID, ceph.SECRET), SimpleNamespace(value=0.0))


#: By name.
STORES = {"moto": _moto, "ceph": _ceph}


@contextlib.contextmanager
def store(cache: Path, kind: str = "moto") -> Iterator[Store]:
    """One of `STORES` with the bucket `bench`, for this process and all that it starts."""
    with STORES[kind]() as one:
        os.environ |= {"AWS_ENDPOINT_URL": one.address, "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": one.login[0], "AWS_SECRET_ACCESS_KEY": one.login[1]}
        os.environ |= {"FSS_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}
        bucket.system().makedirs("bench", exist_ok=True)
        yield one


def copy(run: Path, place: Path) -> None:
    """Put a run's files into the bucket that `place` belongs to."""
    for file in run.rglob("*"):
        if file.is_file():
            publish.write_bytes(place / file.relative_to(run), file.read_bytes())


def forget(run: Run) -> None:
    """Remove this machine's copies of what a run in a bucket reads."""
    for name in _READ:
        folder = run.manifest(name).folder
        if paths.stored(folder):
            shutil.rmtree(folder, ignore_errors=True)


def label(run: Run, name: str) -> None:
    """Label the corpus once more; the backbone is loaded after the first time."""
    STAGES["label"].work(run.work("label", run.folder / "label" / name))


def train(run: Run, name: str) -> None:
    """A training in this process, from the building of the head to its export."""
    loop.work(training.job(run.work("train", run.folder / "train" / name)), 0, 1)


def measure(
    work: Callable[[Run, str], None], places: Mapping[str, tuple[Run, float]], server: Store, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds of the work, and of the store's CPU meanwhile, in each round at each place (run, the store's wait)."""
    taken = {place: {"seconds": list[float](), "store": list[float]()} for place in places}
    for number in range(rounds + 1):  # the first warms up
        for place, (run, waits) in places.items():
            forget(run)
            server.waits.value = waits
            start, busy = time.perf_counter(), server.busy()
            work(run, f"{place}-{number}".replace(" ", "-"))
            if number:
                taken[place]["seconds"].append(time.perf_counter() - start)
                taken[place]["store"].append(server.busy() - busy)
    server.waits.value = 0.0
    return taken


#: By name.
WORKS = {"label": label, "train": train}


def compare(settings: Sequence[str], chosen: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """`measure` of each work: in a folder, and in a bucket whose store waits each of so many milliseconds."""
    with tempfile.TemporaryDirectory() as scratch, store(Path(scratch) / "cache", chosen.store) as server:
        roots = {"folder": f"{scratch}/runs", "bucket": "s3://bench/runs"}
        runs = {kind: Run(load([*settings, f"root={root}"]), STAGES) for kind, root in roots.items()}
        for kind in roots:
            runs[kind].__dict__ |= {"pool": Alone(), "_connected": True}
            runs[kind].ensure("pair")
            if kind == "folder":
                copy(runs[kind].folder, paths.place(roots["bucket"]) / runs[kind].folder.name)
        assert not runs["bucket"].fresh, runs["bucket"].fresh
        places = {"folder": (runs["folder"], 0.0)}
        places |= {
            f"bucket, {delay:g} ms": (runs["bucket"], delay / 1e3)
            for delay in (chosen.delays if chosen.store == "moto" else [0.0])
        }
        os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        torch.distributed.init_process_group("gloo", init_method=f"file://{scratch}/group", rank=0, world_size=1)
        for name in chosen.works:
            yield name, measure(WORKS[name], places, server, chosen.rounds)


def main() -> None:
    """Print the table, and write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--works", choices=WORKS, nargs="+", default=list(WORKS))
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 20.0, 50.0])
    parser.add_argument("--store", choices=STORES, default="moto", help="whose")
    parser.add_argument("--json")
    parser.add_argument("settings", nargs="*")
    chosen = parser.parse_args()
    settings = ["experiment=tiny", "fold=0", "backbone.weights=random", "tracking.enabled=false"]
    settings += [f"corpus.scenes={chosen.images}", "corpus.scenes_val=1", "corpus.shard_size=24", "train.steps=20"]
    taken = {}
    print(f"{'':<7}{'place':<16}{'seconds':>9}{'ratio':>7}{'store CPU s':>13}")
    for what, by_place in compare([*settings, *chosen.settings], chosen):
        taken[what] = by_place
        folder = statistics.median(by_place["folder"]["seconds"])
        for place, each in by_place.items():
            seconds, busy = (statistics.median(each[key]) for key in ("seconds", "store"))
            print(f"{what:<7}{place:<16}{seconds:>9.2f}{seconds / folder:>7.2f}{busy:>13.2f}", flush=True)
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(taken, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Toward a billion images: what the driver costs when units, records and manifests grow, and the work is a nap.

    python -m benchmarks.scale [--units 1000 4000 16000] [--workers 1000] [--nap 2] [--unit 60] [--json FILE]

Names, records, progress, hand-out and manifest are the engine's own, through a real Ray. The `--workers` workers are
places in two processes, which publish their units' (tiny) files and then sleep: no machine has a thousand processes to
give. Each row is a process of its own: what the driver takes in CPU seconds and memory for so many units, and for
listing so many files; the share of a worker's time that it waits, if a unit takes `--unit` seconds; the exponents of
growth between the first and the last row (1 is linear), and what that comes to at 1e9 images.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import ray

from cluster.config import ClusterConfig, CorpusConfig
from cluster.engine import publish
from cluster.engine.files import File
from cluster.engine.pool import Pool
from cluster.engine.session import session
from cluster.engine.work import Log, Output, Unit, Work
from cluster.engine.workers import Workers
from cluster.shard.inputs import CorpusInput, fingerprint

IMAGES = 1e9
#: Processes that play the workers.
_HOSTS = 2


@ray.remote(num_cpus=0, max_concurrency=100_000)
class Host:
    """Many workers in one process: each does its unit at once, then sleeps."""

    async def run(self, function: Any, unit: Unit, nap: float) -> Any:
        """What a worker's `run` answers, `nap` seconds later."""
        result = function(unit)
        await asyncio.sleep(nap)
        return result


class Place:
    """One simulated worker."""

    def __init__(self, host: Any, nap: float):
        self._host, self._nap = host, nap

    def do(self, function: Any, unit: Unit) -> Any:
        """A reference to the result."""
        return self._host.run.remote(function, unit, self._nap)


class Places:
    """Takes the part of `Workers`: all are there at once, and none dies."""

    coming: Sequence[Any] = ()

    def __init__(self, number: int, nap: float):
        hosts = [Host.remote() for _ in range(_HOSTS)]  # type: ignore[attr-defined]
        self.present = [Place(hosts[index % _HOSTS], nap) for index in range(number)]

    def serve(self, folder: Path) -> None:
        """They are all of one kind."""

    def run(self, place: Place, function: Any, unit: Unit) -> Any:
        """A reference to the result."""
        return place.do(function, unit)

    def bring(self, number: int) -> None:
        """They are there."""

    def arrived(self) -> list[Any]:
        """None comes later."""
        return []

    def host(self, place: Place) -> str:
        """For the log."""
        return "a simulated machine"

    def end(self) -> None:
        """They end with Ray."""


class Simulated(Pool):
    """The engine's pool over simulated workers."""

    def __init__(self, workers: int, nap: float):
        self.size, self._lends = workers, False
        self._workers = cast(Workers, Places(workers, nap))


@dataclass(frozen=True)
class Crew:
    """Of a run that has a pool and nothing else."""

    pool: Pool

    def session(self) -> None:
        """Ray is there."""


def nothing(unit: Unit) -> Output:
    """As many files, counts and letters as a shard of a corpus has."""
    files = {f"{unit.name}.tar": b"tar", f"{unit.name}.ledger.parquet": b"ledger"}
    counts = {"inputs": 500, "accepted": 490, "rejected": 5, "duplicate": 5}
    return Output(files, {f"{unit.name}.tar": 490, f"{unit.name}.ledger.parquet": 500}, counts)


@dataclass(frozen=True)
class Row:
    """What one process took for a stage of so many units."""

    units: int
    driver: float
    """CPU seconds to hand out, collect and write the manifest."""
    again: float
    """CPU seconds of a second run, which finds everything done."""
    memory: float
    """MB that names, files and manifest hold at the end."""
    listing: float
    """CPU seconds to list and fingerprint as many files as there are units."""


COLUMNS = ("driver", "again", "memory", "listing")


def measure(units: int, workers: int, nap: float) -> Row:
    """The row of one stage; in a process of its own, for memory does not come back."""
    with tempfile.TemporaryDirectory() as scratch, session(ClusterConfig()):
        folder = Path(scratch) / "stage"
        log = Log(folder, "scale", "")
        work: Work[None, None] = Work(None, None, {}, folder, log, Crew(Simulated(workers, nap)))
        _stage(work, workers)  # what is loaded once
        before, start = _resident(), time.process_time()
        held = _stage(work, units)
        driver, memory = time.process_time() - start, _resident() - before
        start = time.process_time()
        assert _stage(work, units) == held
        again = time.process_time() - start
        listing = _listing(Path(scratch) / "photos", units)
    return Row(units, driver, again, memory, listing)


def _stage(work: Work[None, None], units: int) -> list[File]:
    named = (Unit(f"corpus-{number:07d}", number) for number in range(units))
    files, _ = work.map("scale", nothing, named, total=units)
    publish.write_sealed(work.folder / "manifest.json", {"files": [asdict(file) for file in files]})
    return files


def _listing(folder: Path, number: int) -> float:
    for index in range(number):
        path = folder / f"{index // 1000:06d}" / f"{index:09d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    start = time.process_time()
    assert fingerprint(CorpusInput(str(folder)))[0] == number
    return time.process_time() - start


def _resident() -> float:
    """MB."""
    return float(psutil.Process().memory_info().rss) / 1e6


def exponent(first: Row, last: Row, column: str) -> float:
    """Of the growth of a column; 1 is linear."""
    return math.log(getattr(last, column) / getattr(first, column)) / math.log(last.units / first.units)


def main() -> None:
    """Print the table, and write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--nap", type=float, default=2.0)
    parser.add_argument("--unit", type=float, default=60.0)
    parser.add_argument("--json")
    chosen = parser.parse_args()
    module = importlib.import_module("benchmarks.scale")  # what travels has to be found by its name, which `-m` hides
    rows = []
    print(f"{'units':>8}{'driver, s':>11}{'again, s':>10}{'held, MB':>10}{'listing, s':>12}{'driver busy':>13}")
    for units in chosen.units:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            row = process.submit(module.measure, units, chosen.workers, chosen.nap).result()
        rows.append(row)
        busy = row.driver / units * chosen.workers / chosen.unit
        print(
            f"{units:>8}{row.driver:>11.2f}{row.again:>10.2f}{row.memory:>10.1f}{row.listing:>12.2f}{busy:>12.1%}",
            flush=True,
        )
    growth = {column: exponent(rows[0], rows[-1], column) for column in COLUMNS}
    shards = IMAGES / CorpusConfig().shard_size
    each = {column: getattr(rows[-1], column) / rows[-1].units for column in COLUMNS}
    billion = {c: each[c] * (IMAGES if c == "listing" else shards) for c in COLUMNS}
    print("exponent: " + ", ".join(f"{column} {value:.2f}" for column, value in growth.items()))
    print(
        f"at 1e9 images in {shards:.0f} shards: driver {billion['driver'] / 3600:.1f} h of CPU a stage, found done in "
        f"{billion['again'] / 3600:.1f} h, {billion['memory'] / 1000:.1f} GB; listing {billion['listing'] / 3600:.1f} h"
    )
    if chosen.json:
        result = {"rows": [asdict(row) for row in rows], "exponents": growth, "billion": billion}
        Path(chosen.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

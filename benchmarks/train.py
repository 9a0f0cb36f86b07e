"""Episodes per second of training beside a bare loop of the same model on ready tensors.

    python -m benchmarks.train --root VOC2012 --weights FILE [--models umtfss correlation] [--batch 8] [--json FILE]

Two bare loops, forward, backward and AdamW in plain torch on batches that are in memory:
* `bare, pixels`: the frozen backbone, image by image on a CPU as ours, and the head, on network inputs;
* `bare, features`: the head alone, on features.
Ours is the training loop's own step (DeepSpeed, clipping, averaged weights) on episodes of labelled photos:
* `streamed`: train.features=fresh, every image decoded, augmented and sent through the backbone for every use, by a
  loader process (and, in a row of its own, by the loop's thread); its roof is `bare, pixels`;
* `cached`: features of 2 views of each image, computed before; its roof is `bare, features`.
Sides take turns and medians over the rounds are compared. Then the same with 2 workers (processes that share the
batch), and all ZeRO stages. `wait` is the share of a step's time in which data was waited for. Threads, one each:
a loop and its loader want two cores, two loops and their loaders four. On a machine with fewer free cores look at
`by CPU`, the same ratio in CPU seconds of the loop's own thread, the loader's left out: what is left once that has a
core of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as processes

from cluster.datasets.training import TrainingImages
from cluster.features.backbone import BackboneSpec
from cluster.train.recipe import MetaRecipe
from cluster.train.settings import means, settings
from cluster.train.tasks.labelled import LabelledTasks
from cluster.training.feed import Feed
from cluster.training.loop import Job, Loop
from cluster.training.meter import Meter
from fss.datasets import areas
from fss.tasks import labelled
from jobs._config import load

Row = dict[str, Any]
_VIEWS = 2


@dataclasses.dataclass
class Bench:
    """One model, in one of `world` workers; `given` are the command's arguments."""

    given: argparse.Namespace
    model: str
    rank: int
    world: int
    scratch: Path

    @cached_property
    def tasks(self) -> LabelledTasks:
        """1-shot episodes of the first photos of the train list."""
        source = TrainingImages("pascal5i", str(self.given.root.resolve()), None, 0, None, (), 1.0, 0)
        dataset, classes = source.open()
        table = {name: areas(dataset, name) for name in dataset.names[: self.given.photos]}
        train, _ = labelled.episodes(table, classes, shots=1, min_area=1024, held=0, seed=0)
        return LabelledTasks(source, train, False)

    def recipe(self, **options: Any) -> MetaRecipe:
        """The training of the model with these settings."""
        spec = BackboneSpec(self.given.backbone, str(self.given.weights), 16, self.given.size, 0)
        config = load([f"model={self.model}", "backbone.weights=random"])
        for name, value in {"batch": self.given.batch, "views": _VIEWS, **options}.items():
            setattr(config.train, name, value)
        return MetaRecipe(self.tasks, None, spec, settings(config), means(config), {})

    def loop(self, recipe: MetaRecipe, zero_stage: int) -> Loop:
        """The training loop, at its first step."""
        folder = self.scratch / f"{self.model}-{zero_stage}-{time.perf_counter_ns()}"
        job = Job(
            "train", recipe, folder, folder, "train", "pipeline", {}, steps=10**6, batch=self.given.batch, clip=1.0,
            ema=0.99, zero_stage=zero_stage,
        )  # fmt: skip
        return Loop(job, self.rank, self.world)


class Ours:
    """Some steps of our loop at a time; `seconds` a step and `waits`, of every round."""

    def __init__(self, bench: Bench, zero_stage: int, **options: Any):
        self.bench, self.recipe = bench, bench.recipe(**options)
        self.loop = bench.loop(self.recipe, zero_stage)
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.waits: list[float] = []
        self.at = 0

    def __call__(self, steps: int) -> None:
        """Time `steps` steps that follow one which fills the loader."""
        feed = self.recipe.batches(self.at, self.at + steps + 1, self.bench.rank, self.bench.world)
        assert isinstance(feed, Feed)
        self.loop._step(next(feed))
        meter, start, waited, busy = Meter(self.bench.given.batch), time.perf_counter(), feed.waited, time.thread_time()
        for _ in range(steps):
            meter.add(self.loop._step(next(feed)))
        total = time.perf_counter() - start
        self.seconds.append(total / steps)
        self.cpu.append((time.thread_time() - busy) / steps)
        self.waits.append((feed.waited - waited) / total)
        self.loop.step = self.at = self.at + steps + 1
        assert next(feed, None) is None  # ends the loader, which is no part of a step

    def fill(self) -> None:
        """Put every image's views into the bank: batches until none is new."""
        missed = -1
        while missed != self.recipe.bank.misses:
            missed = self.recipe.bank.misses
            epoch = -(-sum(self.bench.tasks.counts) // self.bench.given.batch)
            for _ in self.recipe.batches(self.at, self.at + epoch, 0, 1):
                pass
            self.at += epoch


class Bare:
    """Some steps of plain torch on batches in memory."""

    def __init__(
        self, bench: Bench, make: Callable[[MetaRecipe], Iterator[Any]], ready: Callable[..., Any], **options: Any
    ):
        self.recipe = bench.recipe(**options)
        self.batches = list(make(self.recipe))
        self.ready = ready
        self.module = self.recipe.module(torch.device("cpu"))
        self.optimizer = self.recipe.optimizer(self.module)
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def __call__(self, steps: int) -> None:
        """Time `steps` steps after one."""
        self._step(0)
        start, busy = time.perf_counter(), time.thread_time()
        for number in range(steps):
            self._step(number)
        self.seconds.append((time.perf_counter() - start) / steps)
        self.cpu.append((time.thread_time() - busy) / steps)

    def _step(self, number: int) -> None:
        batch = self.ready(self.recipe, self.batches[number % len(self.batches)])
        self.optimizer.zero_grad()
        self.module(*batch)["loss"].backward()
        self.optimizer.step()


def pixels(recipe: MetaRecipe) -> Iterator[Any]:
    """Two batches of network inputs."""
    yield from recipe._load(recipe.train, 0, 2, 0, 1, recipe.settings.batch, 0)


def features(recipe: MetaRecipe) -> Iterator[Any]:
    """Two batches of features."""
    yield from recipe.batches(0, 2, 0, 1)


def alone(bench: Bench) -> list[Row]:
    """Our loop beside the bare ones, in turn, and cached under each ZeRO stage."""
    stage = bench.given.zero[0]
    sides: dict[str, Ours | Bare] = {
        "bare, pixels": Bare(bench, pixels, lambda recipe, batch: recipe._inputs(batch), features="fresh"),
        "streamed": Ours(bench, stage, features="fresh", loader_workers=1),
        "streamed, thread": Ours(bench, stage, features="fresh"),
        "bare, features": Bare(bench, features, lambda _, batch: batch),
    }
    return rows(bench, sides | cached(bench))


def together(bench: Bench) -> list[Row]:
    """Several workers: streamed, and cached under each ZeRO stage."""
    streamed = Ours(bench, bench.given.zero[0], features="fresh", loader_workers=1)
    return rows(bench, {"streamed": streamed} | cached(bench))


def cached(bench: Bench) -> dict[str, Ours]:
    """Our loop on cached features under each ZeRO stage; all share one full bank."""
    sides = {stage: Ours(bench, stage, features="cached") for stage in bench.given.zero}
    first = next(iter(sides.values()))
    first.fill()
    for other in sides.values():
        other.recipe.bank, other.at = first.recipe.bank, first.at
    return {f"cached, ZeRO {stage}": one for stage, one in sides.items()}


def rows(bench: Bench, sides: dict[str, Any]) -> list[Row]:
    """Measure the sides in turn; one row each."""
    given = bench.given
    for _ in range(given.rounds):
        for name, side in sides.items():
            side(given.steps if "streamed" in name or "pixels" in name else 4 * given.steps)
    table = []
    for name, side in sides.items():
        seconds = statistics.median(side.seconds)
        wait = statistics.median(side.waits) if isinstance(side, Ours) else None
        row = {"model": bench.model, "workers": bench.world, "side": name, "ms_per_step": 1e3 * seconds, "wait": wait}
        cpu = 1e3 * statistics.median(side.cpu)
        table.append(row | {"cpu_ms_per_step": cpu, "episodes_per_second": given.batch / seconds})
    return table


def worker(rank: int, world: int, given: argparse.Namespace, scratch: str, answer: str) -> None:
    """One process of `world`; rank 0 writes its rows to the file `answer`."""
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{scratch}/group-{world}", rank=rank, world_size=world
    )
    table: list[Row] = []
    for model in given.models:
        bench = Bench(given, model, rank, world, Path(scratch))
        table += alone(bench) if world == 1 else together(bench)
    torch.distributed.destroy_process_group()
    if rank == 0:
        Path(answer).write_text(json.dumps(table))


def compared(table: Sequence[Row]) -> list[Row]:
    """Each row with its share of the bare loop of its kind, by one worker."""
    bare = {(r["model"], r["side"].split(", ")[1]): r for r in table if r["side"].startswith("bare")}
    shares = []
    for row in table:
        kind = "pixels" if "pixels" in row["side"] or "streamed" in row["side"] else "features"
        roof = bare[row["model"], kind]["episodes_per_second"] * row["workers"]
        cpu = bare[row["model"], kind]["cpu_ms_per_step"] / row["workers"] / row["cpu_ms_per_step"]
        shares.append(row | {"of_bare": row["episodes_per_second"] / roof, "of_bare_cpu": cpu})
    return shares


def tell(table: Sequence[Row]) -> None:
    """Print the table, and what caching gains."""
    print("model        workers side               episodes/s   ms/step  of bare  by CPU    wait")
    for row in table:
        wait = "" if row["wait"] is None else f"{100 * row['wait']:.1f} %"
        print(
            f"{row['model']:<12} {row['workers']:>7} {row['side']:<18} {row['episodes_per_second']:>10.2f}"
            f" {row['ms_per_step']:>9.1f} {row['of_bare']:>8.2f} {row['of_bare_cpu']:>7.2f} {wait:>7}"
        )
    for row in table:
        if row["side"] == "streamed":
            same = [r for r in table if (r["model"], r["workers"]) == (row["model"], row["workers"])]
            cached = next(r for r in same if r["side"].startswith("cached"))
            times = " and ".join(f"{row[k] / cached[k]:.1f}" for k in ("ms_per_step", "cpu_ms_per_step"))
            print(f"{row['model']}, {row['workers']} worker(s): cached is {times} (by CPU) times as fast as streamed")


def main() -> None:
    """Measure, print one table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="file, or `random`")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--models", nargs="+", default=["umtfss", "correlation"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--zero", type=int, nargs="+", default=[1, 0, 2, 3], help="stages; the first is streamed, too")
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--steps", type=int, default=4, help="a round; four times as many of what is cached")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    table: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for world in given.workers:
            answer = str(Path(scratch) / f"rows-{world}.json")
            processes.spawn(worker, args=(world, given, scratch, answer), nprocs=world)
            table += json.loads(Path(answer).read_text())
    table = compared(table)
    tell(table)
    if given.json:
        about = {k: str(v) for k, v in vars(given).items() if k != "json"}
        given.json.write_text(json.dumps({"settings": about, "rows": table}, indent=1))


if __name__ == "__main__":
    main()

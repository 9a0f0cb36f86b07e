"""CPU milliseconds of a training step and of an episode measured, in this checkout beside those in another.

    git worktree add ../before COMMIT
    python -m benchmarks.beside --other ../before --root VOC2012 --weights FILE [--heads umtfss panet] [--json FILE]

Each side is a process of one thread that imports its own checkout; both do the same rounds in turn, so that what else
the machine does weighs on both, and the medians are compared.
* `train`: steps of `benchmarks.learning.meta_train`, forward, backward, AdamW and the averaged weights, on cached
  features of labelled photos; the masks of the tasks are read in every step, as in training;
* `measure`: one-shot episodes at two resolutions whose images have been seen before (warm), heads with first weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning import Corpus, Course, choose, meta_train, network
from benchmarks.meta_train import Labels, Row
from fss.datasets import areas, open_dataset
from fss.evaluation import episodes, running
from fss.evaluation.cache import FeatureStore, Memory
from fss.heads.parts.head import Head

FREE = ("prototype", "smoothed", "nearest", "segments")


class Side:
    """What one checkout is asked to do; answers are CPU milliseconds."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.root = options, Path(options.root)
        self.extractor = network(options.weights, options.size, "zeros")
        self._folder = tempfile.TemporaryDirectory()

    def head(self, name: str) -> Head:
        """The head as its preset has it, with first weights."""
        return Row(name, name).head(self.extractor.backbone.channels, 0)

    @cached_property
    def corpus(self) -> Corpus:
        """Train photos, two views each."""
        return Corpus(self.root / "JPEGImages", choose(self.root, self.options.photos, 0), self.extractor, 0, 2)

    @cached_property
    def tasks(self) -> Sequence[Any]:
        """Labelled tasks of these photos."""
        return Labels(self.root, self.corpus).tasks(1.0, 0, 8 * self.options.steps, 0)

    def train(self, name: str) -> float:
        """Of a training step."""
        corpus, tasks, head = self.corpus, self.tasks, self.head(name)
        steps = self.options.steps
        return _timed(lambda: meta_train(corpus, tasks, head, Course(steps)), steps)

    @cached_property
    def photos(self) -> running.Photos:
        """Val photos, with room for all that is computed of them."""
        dataset = open_dataset("pascal5i", str(self.root), None)
        some = dataclasses.replace(dataset, names=dataset.names[: self.options.seen])
        return running.Photos(some, self.extractor, FeatureStore(Path(self._folder.name), 8 << 30), Memory(8 << 30))

    @cached_property
    def episodes(self) -> Sequence[Any]:
        """Neighbours with one query, as the evaluate stage has them."""
        dataset = self.photos.dataset
        pixels = {name: areas(dataset, name) for name in dataset.names}
        pools = [episodes.pool(pixels, one, episodes.EpisodeRules(min_area=2048)) for one in dataset.folds]
        each = self.options.episodes // len(pools)
        drawn = [one for pool in pools for one in episodes.draw(pool, count=each, seed=0)]
        return sorted(drawn, key=lambda one: one.query)

    @cached_property
    def _seen(self) -> dict[str, Head]:
        return {}

    def measure(self, name: str) -> float:
        """Of an episode; the first call for a head sees its images."""
        if name not in self._seen:
            self._seen[name] = self.head(name).eval()
            self._run(name)
        return _timed(lambda: self._run(name), len(self.episodes))

    def _run(self, name: str) -> None:
        for _ in running.run(self._seen[name], self.photos, self.episodes, self.options.size):
            pass


def _timed(work: Callable[[], Any], number: int) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start) / number


def serve(options: argparse.Namespace) -> None:
    """Answer what is asked on standard input, a line each, until it ends."""
    torch.set_num_threads(1)
    side = Side(options)
    for line in sys.stdin:
        what, name = line.split()
        print(getattr(side, what)(name), flush=True)


class Asked:
    """A process that has imported the checkout in `folder`."""

    def __init__(self, folder: Path, arguments: Sequence[str]):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *arguments, "--serve"],
            env={**os.environ, "PYTHONPATH": str(folder.resolve()), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, what: str, name: str) -> float:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, name, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def compare(options: argparse.Namespace, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each work and head, printed as it comes."""
    sides = [Asked(folder, arguments) for folder in (options.other, Path(__file__).parents[1])]
    rows = []
    print("| work | head | before [CPU ms] | now | ratio |\n|---|---|---:|---:|---:|")
    for what in options.works:
        for name in (one for one in options.heads if what == "measure" or one not in FREE):
            found = [[side(what, name) for side in sides] for _ in range(options.rounds)]
            before, now = (statistics.median(column) for column in zip(*found, strict=True))
            rows.append({"work": what, "head": name, "before": before, "now": now, "rounds": found})
            print(f"| {what} | {name} | {before:.2f} | {now:.2f} | {before / now:.2f} |", flush=True)
    for side in sides:
        side.close()
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights, or random")
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument(
        "--heads", nargs="+", default=["correlation", "panet", "pfenet", "cyctr", "umtfss", "smoothed", "prototype"]
    )
    parser.add_argument("--works", nargs="+", default=["train", "measure"], choices=["train", "measure"])
    parser.add_argument("--photos", type=int, default=40, help="that are trained on")
    parser.add_argument("--steps", type=int, default=4, help="of a round, of 8 episodes each")
    parser.add_argument("--seen", type=int, default=335, help="photos that are measured on")
    parser.add_argument("--episodes", type=int, default=1000, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    rows = compare(options, sys.argv[1:])
    if options.json:
        options.json.write_text(json.dumps({"options": sys.argv[1:], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

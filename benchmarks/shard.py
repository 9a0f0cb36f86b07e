"""Images per second of the shard stage, beside a plain loop that reads, verifies and writes the same images.

    python -m benchmarks.shard --root FOLDER [--json FILE]

Plain loop, in one process: read the file, take its sha256, decode it fully with PIL (the only way to know that it is
whole), shrink and re-encode it if it is too large, otherwise keep its bytes; write them and a JSON of path, size, hash,
width and height with tarfile, one tar a shard. It writes no ledger, finds no duplicates, drops no metadata, mixes
nothing and does not sync to disk. "Skimming": the same loop with the stage's cheaper way of verifying, a decode at an
eighth of the size, so that what is left between the two is overhead.

Ours, per worker: all units of the stage, one after the other in one process: listing, hashing, routing, building,
publishing (synced) with the ledger. The sides alternate on the same images, file caches warm; ratios are medians over
the rounds. End to end: the stage's work on pools of 1 and 2 Ray workers that are running and warm. "Beside" is the
machine's own limit for that: the plain loop in 2 processes at once, beside one alone.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import math
import multiprocessing
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from cluster.config import ClusterConfig, Config, CorpusConfig
from cluster.engine.pool import Pool
from cluster.engine.run import Run
from cluster.engine.session import session
from cluster.shard.inputs import CorpusInput
from cluster.stages import STAGES

SHOWN = ("plain", "skimming", "stage", "workers_1", "workers_2")


class Here:
    """A pool without Ray: the units in this process."""

    size = 1

    def map(self, function: Callable[[Any], Any], units: Any) -> Iterator[tuple[int, Any]]:
        """Yield (position, result), in order."""
        for index, unit in enumerate(units):
            yield index, function(unit)


def plain(root: Path, names: list[str], folder: Path, config: CorpusConfig, skim: bool = False) -> None:
    """Read, hash, verify, shrink if needed, write."""
    for number, chunk in enumerate(_batches(names, config.shard_size)):
        with tarfile.open(folder / f"plain-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for name in chunk:
                data = (root / name).read_bytes()
                about = {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                image = Image.open(io.BytesIO(data))
                about["width"], about["height"] = image.size
                if skim and max(image.size) <= config.longer_side:
                    image.draft(None, (1, 1))
                image.load()
                if max(image.size) > config.longer_side:
                    image.thumbnail((config.longer_side, config.longer_side))
                    buffer = io.BytesIO()
                    image.convert("RGB").save(buffer, "JPEG", quality=92)
                    data = buffer.getvalue()
                    about["width"], about["height"] = image.size
                for member, content in ((name, data), (f"{Path(name).stem}.json", json.dumps(about).encode())):
                    info = tarfile.TarInfo(Path(member).name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def _batches(names: list[str], size: int) -> Iterator[list[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def ours(config: Config, pool: Any) -> float:
    """Seconds of the shard stage's work with `pool`, from an empty folder."""
    run = Run(config, STAGES)
    run.__dict__["pool"] = pool
    run.identity("shard")  # lists the inputs once; the stage lists them again
    folder = Path(tempfile.mkdtemp(dir=config.root))
    start = time.perf_counter()
    _, counts = STAGES["shard"].work(run.work("shard", folder))
    seconds = time.perf_counter() - start
    if counts["accepted"] < 0.9 * counts["inputs"]:
        raise SystemExit(f"expected photos that are accepted, got {counts}")
    shutil.rmtree(folder)
    return seconds


def timed(work: Callable[[], None]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def beside(loop: Callable[[], None], number: int) -> float:
    """Seconds of `number` processes that do the same at once."""
    processes = [multiprocessing.get_context("fork").Process(target=loop) for _ in range(number)]
    return timed(lambda: ([p.start() for p in processes], [p.join() for p in processes]))


def measure(config: Config, names: list[str], rounds: int) -> dict[str, Any]:
    """Seconds of every round, and the ratios of neighbouring ones."""
    root, work = Path(str(config.corpus.root)), Path(config.root)
    here = {
        "plain": lambda: timed(lambda: plain(root, names, work, config.corpus)),
        "skimming": lambda: timed(lambda: plain(root, names, work, config.corpus, skim=True)),
        "stage": lambda: ours(config, Here()),
    }
    seconds = _alternate(here, rounds)

    def loop() -> None:
        plain(root, names, Path(tempfile.mkdtemp(dir=work)), config.corpus)

    with session(ClusterConfig()), Pool(ClusterConfig(workers=2)) as two:
        two.on_each(type, [0, 0])  # both are there
        one = copy.copy(two)
        one.size, one._workers = 1, copy.copy(two._workers)
        one._workers.present = two._workers.present[:1]
        pools = {
            "workers_1": lambda: ours(config, one),
            "workers_2": lambda: ours(config, two),
            "alone": lambda: beside(loop, 1),
            "beside": lambda: beside(loop, 2),
        }
        seconds |= _alternate(pools, rounds)

    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))

    return {
        "images": len(names),
        "shards": math.ceil(len(names) / config.corpus.shard_size),
        "images_per_second": {key: len(names) / statistics.median(seconds[key]) for key in SHOWN},
        "stage_over_plain": ratio("plain", "stage"),
        "stage_over_skimming": ratio("skimming", "stage"),
        "two_over_one": ratio("workers_1", "workers_2"),
        "beside": 2 * ratio("alone", "beside"),
        "seconds": seconds,
    }


def _alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in every round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            if (spent := side()) and number:
                seconds[name].append(spent)
    return seconds


def table(result: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    speed = result["images_per_second"]
    ratios = ("stage_over_plain", "stage_over_skimming", "two_over_one", "beside")
    cells = [result["images"], *(f"{value:.0f}" for value in speed.values()), *(f"{result[r]:.2f}" for r in ratios)]
    return "\n".join(
        [
            "| images | plain loop [images/s] | skimming | stage, here | 1 worker | 2 workers "
            "| stage / plain | stage / skimming | 2 / 1 | beside |",
            "|" + "---:|" * len(cells),
            f"| {' | '.join(map(str, cells))} |",
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of photos")
    parser.add_argument("--shard-size", type=int, default=125)
    parser.add_argument("--longer-side", type=int, default=512)
    parser.add_argument("--near-duplicates", type=int, help="bits, as corpus.near_duplicates")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the measurements")
    arguments = parser.parse_args()
    config = Config()
    config.corpus.root = str(Path(arguments.root).resolve())
    config.corpus.shard_size, config.corpus.longer_side = arguments.shard_size, arguments.longer_side
    config.corpus.near_duplicates = arguments.near_duplicates
    names = [entry.path for entry in CorpusInput(config.corpus.root).entries()]
    with tempfile.TemporaryDirectory(prefix="bench-shard-") as folder:
        config.root = folder
        result = measure(config, names, arguments.rounds)
    print(table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

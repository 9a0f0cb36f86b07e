"""Images per second of the shard stage, beside a plain loop that reads, verifies and writes the same images.

    python -m benchmarks.shard --root FOLDER [--json FILE]

Plain loop: read the file, decode it with PIL (the only way to know that it is whole), shrink and re-encode it if it is
too large, otherwise write its bytes, one tar a shard on disk. Ours, per worker: all units of the stage, one after the
other in one process: hashing, routing, building, publishing with the ledger. The sides alternate on the same images,
file caches warm; ratios are medians over the rounds. End to end: the stage's work on pools of 1 and 2 Ray workers
that are running and warm.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from cluster.config import ClusterConfig, Config
from cluster.inputs import Source
from cluster.pool import Pool
from cluster.run import Run
from cluster.session import session
from cluster.stages import STAGES


class Here:
    """A pool without Ray: the units in this process."""

    size = 1

    def map(self, function: Callable[[Any], Any], units: Any) -> Iterator[tuple[int, Any]]:
        """Yield (position, result), in order."""
        for index, unit in enumerate(units):
            yield index, function(unit)


def plain(root: Path, names: list[str], folder: Path, shard_size: int, longer_side: int) -> None:
    """Read, verify, shrink if needed, write."""
    for number, chunk in enumerate(_batches(names, shard_size)):
        with tarfile.open(folder / f"plain-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for name in chunk:
                data = (root / name).read_bytes()
                image = Image.open(io.BytesIO(data))
                image.load()
                if max(image.size) > longer_side:
                    image.thumbnail((longer_side, longer_side))
                    buffer = io.BytesIO()
                    image.convert("RGB").save(buffer, "JPEG", quality=92)
                    data = buffer.getvalue()
                info = tarfile.TarInfo(Path(name).name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        with open(folder / f"plain-{number:06d}.tar", "rb") as file:
            os.fsync(file.fileno())


def _batches(names: list[str], size: int) -> Iterator[list[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def ours(config: Config, pool: Any) -> float:
    """Seconds of the shard stage's work with `pool`, from an empty folder."""
    run = Run(config, STAGES)
    run.__dict__["pool"] = pool
    run.identity("shard")  # lists the inputs once; the stage lists them again
    folder = Path(tempfile.mkdtemp(dir=config.root))
    start = time.perf_counter()
    _, counts = STAGES["shard"].work(run, folder)
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


def measure(config: Config, names: list[str], rounds: int) -> dict[str, Any]:
    """Seconds of every round, and the ratios of neighbouring ones."""
    root, work = Path(str(config.corpus.root)), Path(config.root)
    seconds: dict[str, list[float]] = {"plain": [], "stage": [], "workers_1": [], "workers_2": []}

    def loop() -> None:
        plain(root, names, work, config.corpus.shard_size, config.corpus.longer_side)

    loop(), ours(config, Here())
    for _ in range(rounds):
        seconds["plain"].append(timed(loop))
        seconds["stage"].append(ours(config, Here()))
    with session(ClusterConfig()), Pool(ClusterConfig(workers=1)) as one, Pool(ClusterConfig(workers=2)) as two:
        ours(config, one), ours(config, two)
        for _ in range(rounds):
            seconds["workers_1"].append(ours(config, one))
            seconds["workers_2"].append(ours(config, two))

    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))

    return {
        "images": len(names),
        "shards": math.ceil(len(names) / config.corpus.shard_size),
        "images_per_second": {key: len(names) / statistics.median(values) for key, values in seconds.items()},
        "stage_over_plain": ratio("plain", "stage"),
        "two_over_one": ratio("workers_1", "workers_2"),
        "seconds": seconds,
    }


def table(result: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    speed = result["images_per_second"]
    return "\n".join(
        [
            "| images | plain loop [images/s] | stage, here | 1 worker | 2 workers | stage / plain | 2 / 1 |",
            "|---:|---:|---:|---:|---:|---:|---:|",
            f"| {result['images']} | {speed['plain']:.0f} | {speed['stage']:.0f} | {speed['workers_1']:.0f} "
            f"| {speed['workers_2']:.0f} | {result['stage_over_plain']:.2f} | {result['two_over_one']:.2f} |",
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
    names = [entry.path for entry in Source(config.corpus.root).entries()]
    with tempfile.TemporaryDirectory(prefix="bench-shard-") as folder:
        config.root = folder
        result = measure(config, names, arguments.rounds)
    print(table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

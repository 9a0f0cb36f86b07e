"""Peak memory of every process while the corpus grows: shard to pair at 1x, 4x and 16x, each in fresh processes.

    python -m benchmarks.memory [--images 60] [--times 1 4 16] [--workers 2] [--json FILE] [key=value ...]

Rendered scenes, the tiny preset, shards of one size. The process tree is looked at ten times a second; the figures are
the largest resident sizes: of the driver, of the largest worker, and of Ray's own processes together (which hold the
objects in flight). A worker holds one unit, so its size follows corpus.shard_size and pair.group_shards; k-means keeps
cluster.memory_gib of its sample in a worker, more than these corpora fill, so source.shards=2 bounds it here. The
driver keeps names and sizes of the files, about 2 kB a shard.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def settings(images: int, workers: int, root: str, more: Sequence[str]) -> list[str]:
    """The arguments of jobs.pair for so many scenes."""
    return [
        *("experiment=tiny", "backbone.weights=random", "corpus.shard_size=20", "corpus.scenes_val=1"),
        *("corpus.scene_size=96", "backbone.size=96", "source.shards=2", "tracking.enabled=false"),
        *(f"corpus.scenes={images}", f"cluster.workers={workers}", f"root={root}", *more),
    ]


def watch(command: Sequence[str]) -> dict[str, float]:
    """Run `command` and return peaks in MB: `driver`, `worker`, `ray`; and its seconds.

    Raises:
        RuntimeError: if the command fails.
    """
    start, peaks = time.monotonic(), {"driver": 0.0, "worker": 0.0, "ray": 0.0}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            now = _sizes(psutil.Process(process.pid))
            peaks = {kind: max(peaks[kind], now[kind]) for kind in peaks}
            time.sleep(0.1)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(log.read().decode(errors="replace")[-2000:])
    return {**peaks, "seconds": time.monotonic() - start}


def _sizes(driver: psutil.Process) -> dict[str, float]:
    sizes = {"driver": 0.0, "worker": 0.0, "ray": 0.0}
    try:
        sizes["driver"] = driver.memory_info().rss / 1e6
        children = driver.children(recursive=True)
    except psutil.Error:
        return sizes
    for child in children:
        try:
            title, size = " ".join(child.cmdline()[:1]), child.memory_info().rss / 1e6
        except psutil.Error:  # it has ended
            continue
        if title.startswith("ray::Worker"):
            sizes["worker"] = max(sizes["worker"], size)
        else:
            sizes["ray"] += size
    return sizes


def main() -> None:
    """Print the table, and write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("settings", nargs="*")
    chosen = parser.parse_args()
    rows = []
    print(f"{'images':>8}{'driver':>10}{'worker':>10}{'Ray':>10}{'seconds':>10}   [MB]")
    for times in chosen.times:
        with tempfile.TemporaryDirectory() as root:
            number = chosen.images * times
            arguments = settings(number, chosen.workers, root, chosen.settings)
            peaks = watch([sys.executable, "-m", "jobs.pair", *arguments])
        rows.append({"images": number, **peaks})
        print(
            f"{number:>8}{peaks['driver']:>10.0f}{peaks['worker']:>10.0f}{peaks['ray']:>10.0f}{peaks['seconds']:>10.0f}",
            flush=True,
        )
    growth = {kind: rows[-1][kind] / rows[0][kind] for kind in ("driver", "worker", "ray")}
    print("largest / smallest corpus: " + ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in growth.items()))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps({"rows": rows, "growth": growth}, indent=2) + "\n")


if __name__ == "__main__":
    main()

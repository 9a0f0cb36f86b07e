"""The plan beside what really happened, for a corpus of several sizes: ratios of time and bytes, stage by stage.

    python -m benchmarks.plan [--images 600,2400] [--bucket moto] [--json FILE] [key=value ...]
    python -m benchmarks.plan --images 375,1500,6000 experiment=photos corpus.root=PHOTOS dataset.root=null \
        backbone=mobilenet_v2 backbone.weights=FILE

Scenes of the demo, or that many photos of a folder, evenly spaced in the order of their names. A corpus is planned from
a calibration of its own, then made. Both start Ray and workers on this machine, one after the other. A ratio is
planned / real: 1 is right.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.bucket import STORES, store
from cluster.config import Config
from cluster.engine.manifest import Manifest
from cluster.engine.run import Run
from cluster.planning import calibrate, forecast
from cluster.planning.plan import Machines, PlanRow
from cluster.stages import STAGES
from cluster.storage import paths
from jobs._config import load

#: Files that a stage has once.
_NO_UNITS = ("manifest.json", "timing.json")
#: Stages that are planned with their bytes; the others write next to nothing, whatever the corpus.
_WRITES = ("shard", "sample", "label", "pair")


def real(config: Config, train: bool) -> dict[str, tuple[float, float]]:
    """Seconds, and bytes of units and their records, of each stage of a run from nothing."""
    names = calibrate.planned(config)
    with Run(config, STAGES) as run:
        run.pool.on_each(abs, [0] * run.pool.size)  # the plan does not count the start of workers
        costs: dict[str, tuple[float, float]] = {}
        for name in (*names[:2], "kmeans", *names[2:], *(["train"] if train else [])):
            manifest = run.ensure(name)
            costs[name] = (run.seconds(manifest), _size(manifest))
    return costs


def _size(manifest: Manifest) -> int:
    """Bytes of a stage's units and, where they can be listed, of their records."""
    if paths.stored(manifest.folder):
        return sum(file.bytes for file in manifest.files)
    files = (path for path in manifest.folder.rglob("*") if path.is_file() and path.name not in _NO_UNITS)
    return sum(path.stat().st_size for path in files)


def planned(rows: list[PlanRow], stage: str) -> tuple[float, float]:
    """Seconds and bytes of a stage in the plan."""
    mine = [one for one in rows if one.stage == stage]
    return sum(one.seconds for one in mine), sum(one.written for one in mine)


def settings_of(images: int, chosen: Sequence[str], folder: Path, root: str) -> list[str]:
    """Settings of a run over so many images; a list of them goes into `folder`."""
    ours = [f"root={root}", f"plan.corpus_size={images}", "tracking.enabled=false"]
    photos = next((one.partition("=")[2] for one in chosen if one.startswith("corpus.root=")), None)
    if photos is None:
        scenes = ["experiment=demo", "backbone.weights=random", f"corpus.scenes={images}", "corpus.scenes_val=1"]
        return [*scenes, *ours, *chosen]
    names = sorted(path.name for path in Path(photos).iterdir())
    if len(names) < images:
        raise ValueError(f"--images: expected at most the {len(names)} files of {photos}, got {images}")
    listed = folder / "list.txt"
    listed.write_text("".join(names[number * len(names) // images] + "\n" for number in range(images)))
    return [*ours, *chosen, f"corpus.list={listed}"]


def forecasted(config: Config) -> tuple[list[PlanRow], calibrate.Measured]:
    """The plan, and what it was made of."""
    measured = calibrate.calibrate(config, STAGES)
    machines = Machines(measured.workers, config.cluster.cpus_per_worker, disk=measured.disk)
    return forecast.predict(config, measured, machines), measured


def beside(images: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Plan and make one corpus, each in a process of its own as a user's commands are, and print the two."""
    spawn = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if chosen.bucket:
            stack.enter_context(store(folder / "cache", chosen.bucket))
        fresh = stack.enter_context(ProcessPoolExecutor(1, spawn, max_tasks_per_child=1))
        root = "s3://bench/runs" if chosen.bucket else f"{folder}/runs"
        config = load(settings_of(images, chosen.settings, folder, root))
        rows, measured = fresh.submit(forecasted, config).result()
        happened = fresh.submit(real, config, chosen.train).result()
    table = []
    print(f"{images} images; calibration took {measured.seconds:.0f} s")
    print(f"{'stage':<10}{'planned s':>10}{'real s':>10}{'ratio':>8}{'planned MB':>12}{'real MB':>10}{'ratio':>8}")
    for stage, (seconds, size) in happened.items():
        time, written = planned(rows, stage)
        ratios = time / max(seconds, 1e-3), written / max(size, 1)
        table.append({"stage": stage, "seconds": [time, seconds], "bytes": [written, size], "ratios": ratios})
        line = f"{stage:<10}{time:>10.1f}{seconds:>10.1f}{ratios[0]:>8.2f}"
        print(line + (f"{written / 1e6:>12.2f}{size / 1e6:>10.2f}{ratios[1]:>8.2f}" if stage in _WRITES else ""))
    total = sum(planned(rows, stage)[0] for stage in happened) / sum(seconds for seconds, _ in happened.values())
    print(f"all stages: planned / real seconds {total:.2f}\n", flush=True)
    return {"images": images, "rows": table, "total": total, "measured": dataclasses.asdict(measured)}


def main() -> None:
    """Print a table for each size, and write them with --json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", default="600", help="sizes of the corpus, with commas")
    parser.add_argument("--train", action="store_true", help="train too; the plan leaves out Ray Train's start")
    parser.add_argument("--bucket", choices=STORES, help="in a bucket of whose store, see benchmarks.bucket")
    parser.add_argument("--json")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    chosen = parser.parse_args()
    tables = [beside(int(images), chosen) for images in chosen.images.split(",")]
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(tables, indent=2) + "\n")


if __name__ == "__main__":
    main()

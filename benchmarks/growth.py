"""How each stage's cost grows with the corpus: CPU seconds and peak memory at 1x, 4x and 16x, and the exponents.

    python -m benchmarks.growth [--images 60] [--times 1 4 16] [--json FILE] [key=value ...]

Rendered scenes, the stages' own units one after the other in one process, without Ray; every size has a process of its
own, in which a few scenes have gone through all stages before, so that no import and no first call is counted. The
exponent is that of the last step, between the two largest corpora: 1 is linear, and below it what does not grow weighs.
Peak memory is what a stage adds to what was resident when it began. `label, alone` is the stage without `refine`, which
has it keep embeddings. Pre-training and training take their steps whatever the corpus, so they are not here.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.config import Config
from jobs._config import load

ROOT = Path(__file__).resolve().parent.parent
#: In their order; `label` keeps embeddings for `refine`.
STAGES = ("render", "shard", "sample", "kmeans", "label, alone", "label", "refine", "pair", "quality", "evaluate")


def config(root: str, images: int, refine: str, more: Sequence[str]) -> Config:
    """The run of so many unlabelled scenes, and as many to be measured on."""
    return load(
        [
            *("experiment=tiny", "model=smoothed", f"refine={refine}", f"root={root}", "tracking.enabled=false"),
            *("backbone=mobilenet_v2", "backbone.weights=random", "backbone.size=161", "corpus.scene_size=160"),
            *(f"corpus.scenes={images}", f"corpus.scenes_val={images}", "corpus.shard_size=20", "source.shards=null"),
            *("source.clusters=20", "source.iterations=10", "pair.tasks_per_image=2", "episodes=200", *more),
        ]
    )


def once(images: int, more: Sequence[str]) -> dict[str, dict[str, float]]:
    """CPU seconds and MB that each stage adds, of so many scenes."""
    from tests.cluster.here import here

    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as root:
        for refine in ("none", "consensus"):
            with here(config(root, images, refine, more)) as run:
                last = ("label",) if refine == "none" else ("pair", "quality", "evaluate")
                for name in dict.fromkeys(name for end in last for name in run.order(end)):
                    cost = measured(lambda run=run, name=name: run.ensure(name))
                    if name in run.fresh:
                        figures[f"{name}, alone" if name == "label" and refine == "none" else name] = cost
    return figures


def measured(work: Any) -> dict[str, float]:
    """CPU seconds of all threads, and by how many MB the resident size rose at most."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = _resident("VmRSS"), time.process_time()
    work()
    return {"seconds": time.process_time() - start, "MB": _resident("VmHWM") - before}


def _resident(which: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(f"{which}:"))


def apart(images: int, more: Sequence[str]) -> dict[str, dict[str, float]]:
    """`once` in a process of its own, on one thread.

    Raises:
        RuntimeError: if that fails, with the end of what it said.
    """
    command = [sys.executable, "-m", "benchmarks.growth", "--once", str(images), *more]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "FSS_LOG": "ERROR"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def exponent(costs: Sequence[float], numbers: Sequence[int]) -> float:
    """Of the growth between the two largest corpora."""
    return math.log(costs[-1] / costs[-2]) / math.log(numbers[-1] / numbers[-2])


def table(found: Sequence[dict[str, dict[str, float]]], numbers: Sequence[int]) -> list[str]:
    """A row for each stage, as Markdown."""
    heads = " | ".join(f"{number} images [CPU s]" for number in numbers)
    sizes = " | ".join(f"{number} [MB]" for number in numbers)
    lines = [f"| stage | {heads} | exponent | {sizes} |", "|---|" + "---:|" * (2 * len(numbers) + 1)]
    for name in STAGES:
        seconds = [figures[name]["seconds"] for figures in found]
        memory = " | ".join(f"{figures[name]['MB']:.0f}" for figures in found)
        costs = " | ".join(f"{second:.2f}" for second in seconds)
        lines.append(f"| {name} | {costs} | {exponent(seconds, numbers):.2f} | {memory} |")
    return lines


def refined(figures: dict[str, dict[str, float]]) -> float:
    """CPU seconds of `label` and `refine` over those of `label` alone."""
    return (figures["label"]["seconds"] + figures["refine"]["seconds"]) / figures["label, alone"]["seconds"]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args()
    if given.once:
        once(20, given.settings)
        print(json.dumps(once(given.once, given.settings)))
        return
    numbers = [given.images * times for times in given.times]
    found = [apart(number, given.settings) for number in numbers]
    print("\n".join(table(found, numbers)))
    print("label + refine over label alone: " + ", ".join(f"{refined(figures):.2f}" for figures in found))
    if given.json:
        rows = [{"images": number, **figures} for number, figures in zip(numbers, found, strict=True)]
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

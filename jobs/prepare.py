"""Make a labelled data set ready: build the class masks that it lacks, count its images, say what differs.

    python -m jobs.prepare dataset=coco20i dataset.root=COCO dataset.year=2014 out=DIR
    python -m jobs.prepare dataset=pascal5i dataset.root=VOC2012 dataset.sbd=benchmark_RELEASE out=DIR
    python -m jobs.prepare dataset=fss1000 dataset.root=FSS-1000 dataset.list=FILE

coco20i gets annotations/val2014/NAME.png from annotations/instances_val2014.json, pascal5i gets SegmentationClassAug
from VOC's masks and SBD's .mat files. They are written below dataset.root, or below `out`, which is a root then: new,
empty, or made of the same root before. After an interruption run it again: whole masks are kept.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

from cluster.config import Config
from cluster.engine.refused import RefusedError, refusing
from jobs._config import Command, load, run


def _problems(config: Config) -> list[str]:
    if config.dataset.root:
        return []
    return [f"dataset.root: expected the folder of {config.dataset.name}, got none: give it as dataset.root=FOLDER"]


COMMAND = Command(
    "prepare",
    __doc__,
    ("dataset.root", "dataset.list", "dataset.year", "dataset.sbd", "dataset.min_area", "out", "cluster.workers"),
    reader=functools.partial(load, further=_problems),
    kept="masks that are written are kept; the same command goes on from there",
)


def prepare(config: Config) -> None:
    """Build, count and report.

    Raises:
        ValueError: if something is missing, or images cannot be used; the others are counted first.
    """
    from cluster.evaluate import counts
    from cluster.prepare.prepare import build, place
    from fss.datasets import open_dataset

    chosen = config.dataset
    assert chosen.root is not None
    root = Path(chosen.root)
    if not root.is_dir():
        raise RefusedError(f"dataset.root: expected the folder of {chosen.name}, {root} is none; check its path")
    with refusing():
        out = place(chosen, root, config.out)
    workers = config.cluster.workers or len(os.sched_getaffinity(0))
    for line in build(chosen, root, out, workers):
        print(line, flush=True)
    listed = root / chosen.list if chosen.list and (root / chosen.list).is_file() else chosen.list
    chosen = dataclasses.replace(chosen, root=str(out), list=str(listed) if listed else None)
    dataset = open_dataset(chosen.name, str(out), chosen.list, **chosen.options())
    by_image, problems = counts.shown(chosen, dataset, workers)
    print("\n".join(counts.report(chosen, dataset, by_image)))
    if problems:
        shown = "\n  ".join(problems[:5])
        raise ValueError(f"{len(problems)} of {len(dataset.names)} images cannot be used:\n  {shown}")
    if not any(by_image.values()):
        raise ValueError(
            f"expected classes on at least dataset.min_area={chosen.min_area} pixels of an image, no image of "
            f"{chosen.root} shows one; look at its masks, or lower dataset.min_area"
        )


if __name__ == "__main__":
    run(COMMAND, prepare)

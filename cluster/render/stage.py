"""render: the embedded corpus, written as a user's folder would be (corpus.kind=scenes, dataset=scenes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.engine.run import Run
from cluster.engine.stage import File, Output, Stage, Unit, map_units, write_file
from fss.scenes import scene as scenes

_UNIT = 100


@dataclass(frozen=True)
class RenderScenes:
    """Renders one range of scenes. Its files need no durable publishing: the record comes after them."""

    folder: Path
    total: int
    val: float
    seed: int
    size: int

    def __call__(self, unit: Unit) -> Output:
        """Write images and masks of the range `unit.payload` = (start, stop)."""
        start, stop = unit.payload
        scenes.write(self.folder, self.total, seed=self.seed, size=self.size, start=start, stop=stop, val=self.val)
        return Output({}, {}, {"images": stop - start})


def _settings(run: Run) -> dict[str, Any]:
    corpus = run.config.corpus
    return {
        "seed": run.config.seed,
        "train": corpus.scenes,
        "val": corpus.scenes_val,
        "size": corpus.scene_size,
        "classes": list(scenes.CLASSES),
    }


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    corpus = run.config.corpus
    total = corpus.scenes + corpus.scenes_val
    ranges = [(start, min(start + _UNIT, total)) for start in range(0, total, _UNIT)]
    units = [Unit(f"{start:06d}", (start, stop)) for start, stop in ranges]
    function = RenderScenes(folder, total, corpus.scenes_val / total, run.config.seed, corpus.scene_size)
    _, counts = map_units(run, folder, "render", function, units, total=len(units), parts="parts")
    numbers = {
        "classes.json": len(scenes.CLASSES),
        "ImageSets/train.txt": corpus.scenes,
        "ImageSets/val.txt": corpus.scenes_val,
    }
    return [write_file(folder, name, (folder / name).read_bytes(), n) for name, n in numbers.items()], counts


STAGE = Stage("render", lambda run: (), _settings, _work)

"""render: the embedded corpus, written as a user's folder would be (corpus.kind=scenes, dataset=scenes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config import Config
from cluster.engine.stage import File, Output, Stage, Unit, Work, write_file
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


@dataclass(frozen=True)
class RenderSettings:
    """Which scenes."""

    seed: int
    train: int
    val: int
    size: int
    """Pixels of a side."""
    classes: tuple[str, ...]


def _settings(config: Config) -> RenderSettings:
    corpus = config.corpus
    return RenderSettings(config.seed, corpus.scenes, corpus.scenes_val, corpus.scene_size, tuple(scenes.CLASSES))


def _work(work: Work[RenderSettings, None]) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, folder = work.settings, work.folder
    total = chosen.train + chosen.val
    ranges = [(start, min(start + _UNIT, total)) for start in range(0, total, _UNIT)]
    units = [Unit(f"{start:06d}", (start, stop)) for start, stop in ranges]
    function = RenderScenes(folder, total, chosen.val / total, chosen.seed, chosen.size)
    _, counts = work.map("render", function, units, parts="parts")
    numbers = {
        "classes.json": len(chosen.classes),
        "ImageSets/train.txt": chosen.train,
        "ImageSets/val.txt": chosen.val,
    }
    return [write_file(folder, name, (folder / name).read_bytes(), n) for name, n in numbers.items()], counts


STAGE = Stage(
    "render",
    lambda config: (),
    _settings,
    _work,
    size=lambda settings: {"images": settings("render").train + settings("render").val},
)

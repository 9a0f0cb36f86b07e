"""render: the embedded corpus, written as a user's folder would be (corpus.kind=scenes, dataset=scenes).

Who reads the folder takes it for a user's and checks no hash. So the stage looks at all of it whenever it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config import Config
from cluster.engine.manifest import Manifest
from cluster.engine.stage import File, Output, Stage, Unit, Work, write_file
from cluster.storage import paths
from fss import shards
from fss.scenes import scene as scenes

_UNIT = 100
#: What the data set consists of beside its scenes.
_LISTS = ("classes.json", "ImageSets/train.txt", "ImageSets/val.txt")


@dataclass(frozen=True)
class RenderScenes:
    """Renders one range of scenes. They need no durable publishing: the list of their hashes comes after them."""

    folder: Path
    total: int
    val: float
    seed: int
    size: int

    def __call__(self, unit: Unit) -> Output:
        """Write images and masks of the range `unit.payload` = (start, stop)."""
        start, stop = unit.payload
        scenes.write(self.folder, self.total, seed=self.seed, size=self.size, start=start, stop=stop, val=self.val)
        names = [name for index in range(start, stop) for name in scenes.files(index)]
        paths.send_files(self.folder / name for name in (*names, *_LISTS))
        hashes = {name: _hash(self.folder / name) for name in names}
        return Output({f"hashes/{unit.name}.json": shards.dumps(hashes)}, {}, {"images": stop - start})


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
    lists, counts = work.map("render", function, units, parts="parts")
    numbers = dict(zip(_LISTS, (len(chosen.classes), chosen.train, chosen.val), strict=True))
    others = [write_file(folder, name, paths.read_bytes(folder / name), n) for name, n in numbers.items()]
    return [*others, *lists], counts


def _damaged(manifest: Manifest) -> list[str]:
    """The lists of hashes that a scene or its mask does not agree with, or that are damaged themselves."""
    return [file.path for file in manifest.files if not _agrees(manifest.folder, file)]


def _agrees(folder: Path, file: File) -> bool:
    if _hash(folder / file.path) != file.sha256:
        return False
    if not file.path.startswith("hashes/"):
        return True
    hashes = json.loads((folder / file.path).read_bytes())
    return all(_hash(folder / name) == digest for name, digest in hashes.items())


def _hash(path: Path) -> str:
    """The sha256 of a file's bytes; "" if there is none."""
    return shards.sha256(path.read_bytes()) if path.is_file() else ""


STAGE = Stage(
    "render",
    lambda config: (),
    _settings,
    _work,
    size=lambda settings: {"images": settings("render").train + settings("render").val},
    damaged=_damaged,
    by_path=True,
)

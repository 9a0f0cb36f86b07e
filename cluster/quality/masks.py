"""The class masks that the quality report looks at: the user's, by the names of the images, or the rendered ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.config import Config
from cluster.engine.files import listing
from cluster.engine.manifest import Manifest
from fss.datasets import pascal5i
from fss.datasets.parts import voc
from fss.datasets.parts.named import NamedMasks
from fss.imaging import images
from fss.texts import read_json


@dataclass(frozen=True)
class MasksSettings:
    """What of the user's masks shapes the report: a hash over their names and sizes, and the names of the classes. A
    mask that is replaced by another of exactly the same size goes unnoticed.
    """

    sha256: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class ClassMasks:
    """Index masks in a folder that all workers see, called like the images; `names[i]` is class i, as far as known.

    `version` stands for what is in the folder.
    """

    folder: Path
    version: str
    names: tuple[str, ...] = ()

    @classmethod
    def rendered(cls, render: Manifest) -> ClassMasks:
        """Those of the rendered corpus."""
        folder = render.folder / "SegmentationClass"
        return cls(folder, render.fingerprint, class_names(folder))

    def read(self, path: str, size: tuple[int, int]) -> np.ndarray | None:
        """The (H, W) class mask of the image that came from `path`, see `NamedMasks.read`."""
        return NamedMasks(self.folder, self.version, "quality.masks", self.names[1:]).read(path, size)

    def name(self, value: int) -> str:
        """What class `value` is called."""
        return self.names[value] if value < len(self.names) else f"class {value}"


def renders(config: Config) -> bool:
    """Whether the masks are those of the rendered corpus."""
    return config.corpus.kind == "scenes" and config.quality.masks is None


def place(config: Config) -> Path | None:
    """The folder of the user's masks."""
    return None if config.quality.masks is None else Path(config.quality.masks).resolve()


def settings(config: Config) -> MasksSettings | None:
    """What of the user's masks shapes the report."""
    folder = place(config)
    return None if folder is None else MasksSettings(listing(folder, images.EXTENSIONS), class_names(folder))


def problems(config: Config) -> list[str]:
    """Whether the user's masks are there."""
    folder = place(config)
    if folder is None or folder.is_dir():
        return []
    return [f"quality.masks: expected a folder of masks, there is no {folder}; set quality.masks=FOLDER, or null"]


def class_names(folder: Path) -> tuple[str, ...]:
    """Names from classes.json beside the folder (a list, class 1 first), or VOC's where the folder has VOC's name."""
    listed = folder.parent / "classes.json"
    names: Any = read_json(listed) if listed.is_file() else None
    if isinstance(names, list):
        return ("background", *map(str, names))
    return ("background", *pascal5i.PASCAL_CLASSES) if folder.name in voc.MASK_FOLDERS else ()

"""The embedded corpus of rendered scenes, in PASCAL VOC's layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fss.datasets import Dataset, DatasetKeys
from fss.datasets.parts import voc

TRAINING_LISTS = ("ImageSets/train.txt",)


@dataclass
class Keys(DatasetKeys):
    """Rendered scenes; without a root those that the render stage makes."""

    name: str = "scenes"

    @property
    def rendered(self) -> bool:
        """Whether they are this run's own."""
        return not self.root


def dataset(root: str, list_file: str | None = None) -> Dataset:
    """The scenes below `root`; their classes stand in classes.json, in four equal folds."""
    names = Path(root) / "classes.json"
    if not names.is_file():
        raise ValueError(f"expected {names}, written by the render stage; check dataset.root={root}")
    return voc.dataset(root, list_file or "ImageSets/val.txt", tuple(json.loads(names.read_text())))

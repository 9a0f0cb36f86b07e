"""The class masks that the quality report looks at: the user's, by the names of the images, or the rendered ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.engine.files import listing
from cluster.engine.run import Run
from fss.datasets import pascal5i
from fss.datasets.parts import files, voc


@dataclass(frozen=True)
class Masks:
    """Index masks NAME.png in a folder that all workers see; `names[i]` is class i, as far as they are known."""

    folder: Path
    names: tuple[str, ...] = ()

    @staticmethod
    def rendered(run: Run) -> bool:
        """Whether the masks are those of the rendered corpus."""
        return run.config.corpus.kind == "scenes" and run.config.quality.masks is None

    @classmethod
    def of(cls, run: Run) -> Masks | None:
        """The masks of this run, or None.

        Raises:
            ValueError: if quality.masks is no folder.
        """
        if cls.rendered(run):
            folder = run.manifest("render").folder / "SegmentationClass"
            return cls(folder, _names(folder))
        if run.config.quality.masks is None:
            return None
        folder = Path(run.config.quality.masks).resolve()
        if not folder.is_dir():
            raise ValueError(f"expected a folder of masks at quality.masks={folder}, there is none")
        return cls(folder, _names(folder))

    @classmethod
    def settings(cls, run: Run) -> Any:
        """What of the masks shapes the report: a hash over their names and sizes. One that is replaced by another of
        exactly the same size goes unnoticed.

        Raises:
            ValueError: if quality.masks is no folder.
        """
        if cls.rendered(run):
            return "rendered"
        masks = cls.of(run)
        if masks is None:
            return None
        return {"sha256": listing(masks.folder, "*.png"), "names": list(masks.names)}

    def read(self, path: str, size: tuple[int, int]) -> np.ndarray | None:
        """The (H, W) class mask of the image that came from `path`, shrunk to `size` as the image was; None if there
        is none. It lies where the image lies below the corpus, or directly in the folder.

        Raises:
            ValueError: for a damaged mask, or one of another shape than its image.
        """
        return files.mask_named_as(self.folder, path, size, "quality.masks")

    def name(self, value: int) -> str:
        """What class `value` is called."""
        return self.names[value] if value < len(self.names) else f"class {value}"


def _names(folder: Path) -> tuple[str, ...]:
    """Names from classes.json beside the folder (a list, class 1 first), or VOC's where the folder has VOC's name."""
    listed = folder.parent / "classes.json"
    found: Any = json.loads(listed.read_text()) if listed.is_file() else None
    if isinstance(found, list):
        return ("background", *map(str, found))
    return ("background", *pascal5i.PASCAL_CLASSES) if folder.name in voc.MASK_FOLDERS else ()

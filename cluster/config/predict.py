"""The keys of `jobs.predict`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import MISSING

from cluster.config.corpus import reading_problems
from fss.imaging.colour import Reading
from fss.keys import at_least, key, ranged

#: The keys that say where in a support the thing is.
SHOWN = {"support_mask": "one mask", "support_box": "one box", "support_points": "one list of points"}


@dataclass
class PredictConfig:
    """Segment the user's own images."""

    model: str = key(MISSING, path=True)
    """Folder of an exported model, a run's folder, whose model is taken, or MLflow's models:/NAME@ALIAS or
    models:/NAME/VERSION."""
    support: str | list[str] = key(MISSING, path=True)
    """Image, or list of images, that shows the thing: support=[a.jpg,b.jpg]."""
    support_mask: str | list[str] | None = key(None, path=True)
    """Its mask, or one for each support: nonzero (or 1) = the thing. In its place a box or points may be given."""
    support_box: list[list[float]] | None = None
    """A box around the thing for each support, [[left,top,right,bottom]] in pixels; the model finds the thing in it."""
    support_points: list[list[list[float]]] | None = None
    """Points for each support, [[[x,y,1],[x,y,0]]] in pixels: 1 = on the thing, 0 = beside it; the model finds the
    thing around them."""
    query: str | list[str] = key(MISSING, path=True)
    """Images to segment: an image, a folder, a pattern ('photos/**/*.jpg'), a text file with one path a line, a video,
    whose frames are called NAME-000001 and so on, or a list of these."""
    every: int = key(1, at_least(1))
    """Of a video, the first frame and every so-manyth after it."""
    out: str = MISSING
    """Folder that masks, overlays, tables and the contact sheet are written into."""
    name: str = "thing"
    """What the thing is called in coco.json and on the contact sheet."""
    threshold: float = key(0.5, ranged("a probability in (0, 1)", lambda value: 0 < value < 1))
    """Foreground probability from which a pixel belongs to the thing, in (0, 1)."""
    presence: float = key(0.25, ranged("a chance from 0 to 1", lambda value: 0 <= value <= 1))
    """Chance from which an image counts as one that holds the thing, in answers.csv and coco.json; masks are written
    all the same. Without a calibrated model an image holds the thing if its mask is not empty."""
    tile: int | None = key(None, at_least(64))
    """Side in pixels of the square tiles that larger images are cut into, for things that are small in them; tiles
    overlap by a quarter. none = the model sees each image as a whole, squeezed to its own input."""
    edges: bool = True
    """Whether borders of masks follow those of the photo: pixels that look the same and lie together are in or out
    together. Soft maps and confidence are of the model alone."""
    soft: bool = False
    """Whether each image's probabilities are written too, as NAME.soft.png of 16 bits: 65535 = certain."""
    bands: list[int] | None = None
    """Bands of TIFFs of several that are shown as red, green and blue, or one as grey, counted from 1: [4,3,2]; none =
    as the file says. Give what the model's corpus.bands was."""
    range: list[float] | None = None
    """Numbers that are shown black and white, [low,high], in files of more than 8 bits; none = as their numbers say.
    Give what the model's corpus.range was."""
    overwrite: bool = False
    """Whether masks that are in `out` already are written anew; otherwise they are refused."""
    device: str = "auto"
    """Where the model runs: `cpu`, `cuda`, or `auto` = a GPU if there is one."""

    @property
    def reading(self) -> Reading:
        """How numbers become light."""
        return Reading(tuple(self.bands) if self.bands else None, tuple(self.range) if self.range else None)  # type: ignore[arg-type]

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        supports = listed(self.support)
        wrong = [
            f"{key}: expected at least one image, got an empty list"
            for key in ("support", "query")
            if not listed(getattr(self, key))
        ]
        if supports and MISSING not in supports:
            wrong += self._shown_problems(supports)
        if any(len(box) != 4 or not all(map(math.isfinite, box)) for box in self.support_box or ()):
            wrong.append(f"support_box: expected [[left,top,right,bottom]], four numbers each, got {self.support_box}")
        if any(len(one) != 3 for points in self.support_points or () for one in points):
            wrong.append(f"support_points: expected points [x,y,side] for each support, got {self.support_points}")
        return [*wrong, *reading_problems(self.bands, self.range)]

    def _shown_problems(self, supports: Sequence[str]) -> list[str]:
        given = {name: value for name in SHOWN if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            return [f"support_mask: expected one of {', '.join(SHOWN)}, got {' and '.join(given) or 'none'}; set one"]
        ((name, value),) = given.items()
        number = len(listed(value))
        if number == len(supports):
            return []
        return [f"{name}: expected {SHOWN[name]} for each support, got {number} for {len(supports)} supports"]


def listed(value: str | list[str]) -> list[str]:
    """One text, or a list of them, as a list."""
    return value if isinstance(value, list) else [value]

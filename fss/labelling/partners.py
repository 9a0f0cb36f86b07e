"""What tasks of regions are worth: every region with its nearest partner, against the objects that masks show.

A region and the most similar region of its cluster in another image are a task as pairing would make it. Without masks
partners say how alike they are; with masks, which are looked at for figures alone, whether both are objects, and the
same. Sums add over groups of images.

Letters: R regions, L labels of a layer, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from fss.labelling.quality import Overlap

#: IoU above which a region is an object, and share of it above which it lies inside one.
HALF = 0.5
_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class ObjectFits:
    """How R regions fit the objects of their images, column by column."""

    known: np.ndarray
    """(R,) bool: whether the image has a mask; the others' figures are 0."""
    thing: np.ndarray
    """(R,) int64 class of the object that the region has the best IoU with; 0 if it meets none."""
    iou: np.ndarray
    """(R,) float64 that IoU."""
    inside: np.ndarray
    """(R,) float64 largest share of the region that lies inside one object."""

    @classmethod
    def empty(cls, number: int) -> ObjectFits:
        """Of regions whose images have no masks."""
        return cls(np.zeros(number, bool), np.zeros(number, np.int64), np.zeros(number), np.zeros(number))


def fit(shared: Overlap) -> dict[int, tuple[int, float, float]]:
    """Of each label of a layer the class (not background, 0) of the best IoU, that IoU, and the share inside one class.

    A label of which only void pixels are seen is left out.
    """
    things = shared.classes != 0
    mine, true, both = shared.pixels.sum(axis=1), shared.pixels.sum(axis=0)[things], shared.pixels[:, things]
    if not things.any():
        return {int(label): (0, 0.0, 0.0) for label in shared.labels}
    iou = both / (mine[:, None] + true - both)
    best, inside = iou.argmax(axis=1), (both / mine[:, None]).max(axis=1)
    named = np.where(iou.max(axis=1) > 0, shared.classes[things][best], 0)
    rows = zip(shared.labels, named, iou.max(axis=1), inside, strict=True)
    return {int(label): (int(thing), float(high), float(share)) for label, thing, high, share in rows}


def partners(key: np.ndarray, label: np.ndarray, descriptor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar region of the same label in another image: (R,) int64 rows, -1 = none, and (R,) float32 cosines.

    Args:
        key: (R,) images.
        label: (R,) clusters.
        descriptor: (R, D) rows of length 1.
    """
    image = np.unique(key, return_inverse=True)[1]
    nearest, cosine = np.full(len(key), -1, np.int64), np.zeros(len(key), np.float32)
    for cluster in np.unique(label):
        rows = np.flatnonzero(label == cluster)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            likeness = np.where(image[part][:, None] == image[rows], -np.inf, descriptor[part] @ descriptor[rows].T)
            best = likeness.max(axis=1)
            nearest[part] = np.where(np.isfinite(best), rows[likeness.argmax(axis=1)], -1)
            cosine[part] = np.where(np.isfinite(best), best, 0)
    return nearest, cosine


@dataclasses.dataclass(frozen=True)
class TaskSums:
    """Sums over regions and their tasks; those of disjoint groups add."""

    regions: int = 0
    area: float = 0.0
    border: float = 0.0
    tasks: int = 0
    """Regions with a partner."""
    likeness: float = 0.0
    """Of cosines to partners."""
    mutual: int = 0
    """Tasks of two regions each of which is the other's partner."""
    known: int = 0
    """Regions in images with a mask."""
    object: int = 0
    inside: int = 0
    known_tasks: int = 0
    """Tasks of which both images have a mask."""
    same: int = 0
    clean: int = 0

    def __add__(self, other: TaskSums) -> TaskSums:
        return TaskSums(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def figures(self) -> dict[str, float]:
        """Numbers, means and shares; those of masks only where there are some.

        `area` and `border` are means over regions, `tasks` the share of the regions that have a partner, `likeness` the
        mean cosine to it, `mutual` the share of the tasks whose two regions chose each other. Of regions in images with
        masks: `object`, those with an IoU above 0.5 with an object, and `inside`, those more than half inside one.
        Of tasks with masks: `same_class`, both regions overlap an object of one class best, and `clean`, both are
        such objects besides.
        """
        tasks, known = max(self.known_tasks, 1), max(self.known, 1)
        figures = {
            "regions": float(self.regions),
            "area": self.area / max(self.regions, 1),
            "border": self.border / max(self.regions, 1),
            "tasks": self.tasks / max(self.regions, 1),
            "likeness": self.likeness / max(self.tasks, 1),
            "mutual": self.mutual / max(self.tasks, 1),
        }
        if not self.known:
            return figures
        masks = {"object": self.object / known, "inside": self.inside / known}
        return figures | masks | {"same_class": self.same / tasks, "clean": self.clean / tasks}


def sum_tasks(columns: Mapping[str, np.ndarray], fits: ObjectFits) -> TaskSums:
    """Sums over R usable regions of a group of images.

    Args:
        columns: `key`, `label`, `area` and `border`, (R,) each, and `descriptor`, (R, D) rows of length 1.
        fits: how they fit objects.
    """
    nearest, cosine = partners(columns["key"], columns["label"], columns["descriptor"])
    tasks = np.flatnonzero(nearest >= 0)
    other = nearest[tasks]
    known = fits.known[tasks] & fits.known[other]
    same = known & (fits.thing[tasks] != 0) & (fits.thing[tasks] == fits.thing[other])
    is_object = fits.iou > HALF
    return TaskSums(
        regions=len(nearest),
        area=float(columns["area"].sum(dtype=np.float64)),
        border=float(columns["border"].sum(dtype=np.float64)),
        tasks=len(tasks),
        likeness=float(cosine[tasks].sum(dtype=np.float64)),
        mutual=int((nearest[other] == tasks).sum()),
        known=int(fits.known.sum()),
        object=int(is_object.sum()),
        inside=int((fits.inside > HALF).sum()),
        known_tasks=int(known.sum()),
        same=int(same.sum()),
        clean=int((same & is_object[tasks] & is_object[other]).sum()),
    )

"""What clusters and their regions are worth: figures from sums that add, so that any number of workers may count.

Without labels: how even the clusters are, how much of the embeddings' variance they explain, how large the regions are.
With class masks, which are looked at for this report alone: how clusters agree with classes, and how much the best
region of each object looks like it, which is what decides whether pseudo-tasks teach objects or their parts.

Letters: K clusters, C classes, R regions, D dimensions, B area bins, H x W image.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fss.imaging.images import VOID

#: Bins of equal width that areas in (0, 1] are counted in.
BINS = 1000
#: IoU from which an object counts as found.
FOUND = 0.5
_QUANTILES = (10, 25, 50, 75, 90)


@dataclasses.dataclass(frozen=True)
class RegionSums:
    """Sums over regions; those of disjoint sets of images add."""

    regions: np.ndarray
    """(K,) int64."""
    images: np.ndarray
    """(K,) int64 images in which a cluster has regions."""
    area: np.ndarray
    """(K,) float64 sums of shares of the image."""
    border: np.ndarray
    """(K,) float64 sums of shares of the border."""
    areas: np.ndarray
    """(B,) int64 regions by area."""
    usable: np.ndarray
    """(B,) int64 regions that pairing may take, by area."""
    strayed: np.ndarray
    """() int64 regions whose mean embedding lies nearer to another cluster's centroid than to its own."""
    rows: np.ndarray
    """(D,) float64 sum of the embeddings, which are of length 1."""
    inertia: np.ndarray
    """() float64 sum of squared distances to the nearest centroid."""
    assigned: np.ndarray
    """(K,) int64 regions whose mean embedding lies nearest to a centroid."""
    along: np.ndarray
    """(K,) float64 sums of their embeddings' components along that centroid."""

    def __add__(self, other: RegionSums) -> RegionSums:
        names = [field.name for field in dataclasses.fields(self)]
        return RegionSums(**{name: getattr(self, name) + getattr(other, name) for name in names})


def sum_regions(
    key: np.ndarray,
    label: np.ndarray,
    area: np.ndarray,
    border: np.ndarray,
    usable: np.ndarray,
    rows: np.ndarray,
    nearest: tuple[np.ndarray, np.ndarray],
    lengths: np.ndarray,
) -> RegionSums:
    """Sums over R regions.

    Args:
        key: (R,) images.
        label: (R,) integers in 0..K-1.
        area: (R,) shares of the image in (0, 1].
        border: (R,) shares of the border in [0, 1].
        usable: (R,) bool.
        rows: (R, D) centred embeddings of length 1.
        nearest: (R,) nearest centroids and (R,) squared distances to them.
        lengths: (K,) of the centroids.
    """
    clusters, (own, distance) = len(lengths), nearest
    length = np.maximum(lengths[own].astype(np.float64), 1e-12)
    along = (1 + length**2 - distance) / (2 * length)
    bins = np.clip(np.ceil(area * BINS).astype(np.int64) - 1, 0, BINS - 1)
    members = [len(np.unique(key[label == cluster])) for cluster in range(clusters)]
    return RegionSums(
        regions=np.bincount(label, minlength=clusters),
        images=np.array(members, dtype=np.int64),
        area=np.bincount(label, weights=area, minlength=clusters),
        border=np.bincount(label, weights=border, minlength=clusters),
        areas=np.bincount(bins, minlength=BINS),
        usable=np.bincount(bins[usable], minlength=BINS),
        strayed=np.array((own != label).sum()),
        rows=rows.sum(axis=0, dtype=np.float64),
        inertia=distance.sum(dtype=np.float64),
        assigned=np.bincount(own, minlength=clusters),
        along=np.bincount(own, weights=along, minlength=clusters),
    )


def entropy(sizes: np.ndarray) -> float:
    """Entropy of (K,) sizes as a share of its maximum, log K: 1 = all equal, 0 = one holds everything (or K = 1)."""
    shares = sizes[sizes > 0] / max(sizes.sum(), 1)
    return float(-(shares * np.log(shares)).sum() / np.log(len(sizes))) if len(sizes) > 1 else 0.0


def explained(sums: RegionSums) -> float:
    """Share of the variance of the embeddings that their centroids explain: 1 - left / total, at most 1.

    Left is what centroids of the best length leave, n - (sum along)^2 / n for n rows of length 1: those of spherical
    k-means are of length 1, which no mean is. The total is what one centroid at the mean would leave.
    """
    number = max(int(sums.regions.sum()), 1)
    total = number - float(sums.rows @ sums.rows) / number
    left = number - float((sums.along**2 / np.maximum(sums.assigned, 1)).sum())
    return 1 - left / total if total > 1e-9 else 0.0


def quantiles(bins: np.ndarray) -> dict[str, float]:
    """10th, 25th, 50th, 75th and 90th percentile of areas counted in (B,) bins: {"p10": ...}; empty without areas.

    Each is the upper end of the bin that holds it, at most 1 / B too large.
    """
    reached = np.cumsum(bins)
    if not len(reached) or reached[-1] == 0:
        return {}
    return {f"p{q}": float(np.searchsorted(reached, q / 100 * reached[-1]) + 1) / len(bins) for q in _QUANTILES}


def agreement(table: np.ndarray) -> dict[str, float]:
    """How clusters agree with classes, from the (K, C) integer table of pixels in both; every figure in [0, 1].

    `nmi`: mutual information over the mean of both entropies. `purity`: share of pixels whose class is their cluster's
    most frequent one; grows with K. `accuracy` and `miou`: after the one-to-one matching of clusters to classes that
    brings most pixels into agreement (Hungarian); pixels of clusters left over are wrong, a class left over has IoU 0;
    the mean is over the classes that occur.

    Raises:
        ValueError: for a table without any pixel, or with negative numbers.
    """
    from scipy.optimize import linear_sum_assignment

    table = np.asarray(table, dtype=np.int64)
    if table.ndim != 2 or table.sum() <= 0 or table.min() < 0:
        raise ValueError(f"expected a (clusters, classes) table of pixels, got shape {table.shape}, sum {table.sum()}")
    total = table.sum()
    mine, true = table.sum(axis=1), table.sum(axis=0)
    rows, columns = linear_sum_assignment(table, maximize=True)
    both = table[rows, columns]
    iou = np.zeros(len(true))
    iou[columns] = both / np.maximum(mine[rows] + true[columns] - both, 1)
    return {
        "nmi": _nmi(table),
        "purity": float(table.max(axis=1).sum() / total),
        "accuracy": float(both.sum() / total),
        "miou": float(iou[true > 0].mean()),
    }


def _nmi(table: np.ndarray) -> float:
    joint = table / table.sum()
    mine, true = joint.sum(axis=1), joint.sum(axis=0)
    there = joint > 0
    shared = float((joint[there] * np.log(joint[there] / np.outer(mine, true)[there])).sum())
    mean = float(sum(-(p[p > 0] * np.log(p[p > 0])).sum() for p in (mine, true)) / 2)
    return 1.0 if mean < 1e-12 else min(max(shared / mean, 0.0), 1.0)


@dataclasses.dataclass(frozen=True)
class Overlap:
    """One layer of an image's label map over its class mask: (L,) `labels`, (C,) `classes`, (L, C) int64 `pixels`."""

    labels: np.ndarray
    classes: np.ndarray
    pixels: np.ndarray


def overlap(layer: np.ndarray, mask: np.ndarray) -> Overlap:
    """Count an (H, W) label map against an (H, W) class mask; void pixels (255) count nowhere.

    Raises:
        ValueError: if they differ in size.
    """
    if layer.shape != mask.shape:
        raise ValueError(f"expected a label map and a mask of one size, got {layer.shape} and {mask.shape}")
    seen = mask != VOID
    labels, row = np.unique(layer[seen], return_inverse=True)
    classes, column = np.unique(mask[seen], return_inverse=True)
    pixels = np.bincount(row * len(classes) + column, minlength=len(labels) * len(classes))
    return Overlap(labels, classes, pixels.reshape(len(labels), len(classes)))


@dataclasses.dataclass(frozen=True)
class Match:
    """How a region fits an object: IoU, share of the object that it covers, share of it that is the object."""

    iou: float
    completeness: float = 0.0
    precision: float = 0.0
    ratio: float = 0.0
    """Area of the region over that of the object; 1 is right, less is a part of it."""


def best_matches(shared: Overlap, allowed: Iterable[int] | None = None) -> dict[int, Match | None]:
    """The region of the best IoU with each object, that is, class of the image but background (0): class -> match.

    `allowed` are the labels that may be taken (None = all); None where there is none of them.
    """
    chosen = np.isin(shared.labels, list(allowed)) if allowed is not None else np.ones(len(shared.labels), bool)
    pixels, mine, true = shared.pixels[chosen], shared.pixels[chosen].sum(axis=1), shared.pixels.sum(axis=0)
    return {
        int(value): _best(pixels[:, i], mine, int(true[i])) for i, value in enumerate(shared.classes) if int(value) != 0
    }


def _best(both: np.ndarray, mine: np.ndarray, true: int) -> Match | None:
    if not len(both):
        return None
    iou = both / (mine + true - both)
    i = int(iou.argmax())
    return Match(float(iou[i]), float(both[i] / true), float(both[i] / mine[i]), float(mine[i] / true))


@dataclasses.dataclass
class MaskSums:
    """Sums over the images whose masks are known; `add` joins those of disjoint sets of images."""

    images: int = 0
    pixels: Counter[tuple[int, int, int]] = dataclasses.field(default_factory=Counter)
    """(layer, cluster, class) -> pixels."""
    objects: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Which regions were looked at (a layer's number, `all`, `usable`) -> (7,) float64: objects, those found, those
    that a region overlaps, and sums of IoU, completeness, precision and the logarithm of the area ratio."""

    def take(self, layers: Sequence[np.ndarray], mask: np.ndarray, usable: Iterable[tuple[int, int]]) -> None:
        """Count one image: its (H, W) label maps, its (H, W) class mask, and (layer, label) of its usable regions."""
        self.images += 1
        allowed = set(usable)
        every: list[dict[int, Match | None]] = []
        good: list[dict[int, Match | None]] = []
        for number, layer in enumerate(layers):
            shared = overlap(layer, mask)
            for i, j in zip(*np.nonzero(shared.pixels), strict=True):
                self.pixels[number, int(shared.labels[i]), int(shared.classes[j])] += int(shared.pixels[i, j])
            every.append(best_matches(shared))
            good.append(best_matches(shared, [label for one, label in allowed if one == number]))
            self._note(str(number), every[-1:])
        self._note("all", every)
        self._note("usable", good)

    def _note(self, name: str, layers: Sequence[Mapping[int, Match | None]]) -> None:
        """Add the best match of each object over some layers."""
        sums = self.objects.setdefault(name, np.zeros(7))
        for value in layers[0]:
            matches = [match for layer in layers if (match := layer[value]) is not None]
            best = max(matches, key=lambda one: one.iou, default=Match(0.0))
            logarithm = float(np.log(best.ratio)) if best.iou > 0 else 0.0
            sums += (1, best.iou >= FOUND, best.iou > 0, best.iou, best.completeness, best.precision, logarithm)

    def add(self, other: MaskSums) -> None:
        """Take in what was counted elsewhere."""
        self.images += other.images
        self.pixels.update(other.pixels)
        for name, sums in other.objects.items():
            self.objects[name] = self.objects[name] + sums if name in self.objects else sums.copy()

    def table(self, clusters: int, layer: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(K, C) int64 pixels of clusters and classes, of one layer or over all, and the (C,) classes that occur."""
        classes = np.array(sorted({value for _, _, value in self.pixels}), dtype=np.int64)
        counts = np.zeros((clusters, len(classes)), dtype=np.int64)
        for (number, cluster, value), pixels in self.pixels.items():
            if layer in (None, number):
                counts[cluster, np.searchsorted(classes, value)] += pixels
        return counts, classes

    def matches(self) -> dict[str, dict[str, float]]:
        """Figures over objects, by the regions that were looked at.

        `iou`, `completeness` and `precision`: means over objects of their best region, 0 where no region may be taken;
        `found`: share of the objects with an IoU of at least 0.5; `area_ratio`: geometric mean of the best region's
        area over the object's, over the objects that a region overlaps at all (0 if none).
        """
        figures = {}
        for name, (number, hits, overlapped, iou, completeness, precision, logs) in self.objects.items():
            means = {"iou": iou, "found": hits, "completeness": completeness, "precision": precision}
            figures[name] = {
                "objects": float(number),
                **{key: float(value / max(number, 1)) for key, value in means.items()},
                "area_ratio": float(np.exp(logs / overlapped)) if overlapped else 0.0,
            }
        return figures

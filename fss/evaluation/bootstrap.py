"""Confidence intervals over episodes: how far a figure would move had other episodes been drawn.

An evaluation's episodes are a random sample, and its figures are ratios of sums over them: so whole episodes are
resampled with replacement, summed, divided once. A replicate is a vector of weights, how often each episode came;
integers times integers, so that weights of one give the figure itself.

Each list (one seed of one fold) is resampled on its own and keeps its length. The lists are fixed parts of the
protocol, with classes of their own: pooling them would add the noise of how many episodes fall to which fold, which
no evaluation has. Classes are not fixed, for an episode draws its class.

    model = replicate(columns)
    interval(model), interval(model, "fb_iou"), interval(model, 7)     # mIoU, FB-IoU, IoU of class 7
    difference(replicate(other), model)              # paired: both models see the same weights
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from fss import rng

LEVEL = 0.95
_BLOCK = 1_000_000  # weights at a time: a few arrays of 8 MB
_LEAST = 100


@dataclasses.dataclass(frozen=True)
class Columns:
    """What one model did: (R,) int64 columns with one entry for each episode and way.

    `fold`, `seed` and `episode` name the episode, all entries of which are drawn together. The counts are pixels; the
    background's stand in any one entry of an episode and are zero in the others, so that all can be summed.

    Raises:
        ValueError: for columns that are empty, not flat, not of integers or of different lengths.
    """

    fold: np.ndarray
    seed: np.ndarray
    episode: np.ndarray
    class_id: np.ndarray
    intersection: np.ndarray
    union: np.ndarray
    background_intersection: np.ndarray
    background_union: np.ndarray

    def __post_init__(self) -> None:
        for name, column in vars(self).items():
            if column.ndim != 1 or len(column) != len(self.fold) or not np.issubdtype(column.dtype, np.integer):
                raise ValueError(
                    f"{name}: expected {len(self.fold)} integers like the column fold, got shape {column.shape} of "
                    f"{column.dtype}; evaluate again"
                )
        if not len(self.fold):
            raise ValueError("expected at least one episode, got none; evaluate with episodes= of at least 1")

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """The columns of these names in `table`, whatever else it holds."""
        return cls(*(np.asarray(table[field.name]) for field in dataclasses.fields(cls)))

    def where(self, mask: np.ndarray) -> Columns:
        """The entries for which the (R,) `mask` is true."""
        return Columns(*(column[mask] for column in vars(self).values()))

    def keys(self) -> np.ndarray:
        """(4, R) seed, fold, episode and class of all entries, sorted: equal for models on the same episodes."""
        keys = np.stack([self.seed, self.fold, self.episode, self.class_id])
        return keys[:, np.lexsort(keys[::-1])]


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Figures of one list of episodes, fractions in [0, 1]: row 0 as measured, the others the S replicates.

    `miou`, `fb_iou`: (S + 1,). `iou`: (S + 1, C) for `classes` (C,); NaN where no resampled episode shows the class,
    which is then left out of that replicate's mean.
    """

    classes: np.ndarray
    iou: np.ndarray
    miou: np.ndarray
    fb_iou: np.ndarray

    def values(self, figure: str | int) -> np.ndarray | None:
        """(S + 1,) of ``miou``, ``fb_iou`` or a class; None if the list does not show that class."""
        if isinstance(figure, str):
            return {"miou": self.miou, "fb_iou": self.fb_iou}[figure]
        columns = np.flatnonzero(self.classes == figure)
        return self.iou[:, columns[0]] if len(columns) else None


@dataclasses.dataclass(frozen=True)
class Replicates:
    """All lists of one model, by (seed, fold), and what they were resampled from."""

    seed: int
    samples: int
    keys: np.ndarray
    strata: Mapping[tuple[int, int], Stratum]

    @property
    def classes(self) -> list[int]:
        """The classes that any list shows, in order."""
        return sorted({int(c) for stratum in self.strata.values() for c in stratum.classes})

    def values(self, figure: str | int = "miou") -> np.ndarray:
        """(S + 1,) float64: the mean over folds, then over seeds; row 0 is the figure as measured.

        Raises:
            ValueError: for a class that no list shows.
        """
        by_seed: dict[int, list[np.ndarray]] = {}
        for (seed, _), stratum in self.strata.items():
            values = stratum.values(figure)
            if values is not None:
                by_seed.setdefault(seed, []).append(values)
        if not by_seed:
            raise ValueError(f"expected one of the classes {self.classes}, got {figure}")
        return _mean(np.stack([_mean(np.stack(folds, axis=1)) for folds in by_seed.values()], axis=1))

    def by_fold(self, figure: str = "miou") -> dict[int, float]:
        """The figure of each fold as measured, the mean over seeds."""
        return self._grouped(figure, 1)

    def by_seed(self, figure: str = "miou") -> dict[int, float]:
        """The figure of each seed as measured, the mean over folds."""
        return self._grouped(figure, 0)

    def _grouped(self, figure: str, part: int) -> dict[int, float]:
        groups: dict[int, list[float]] = {}
        for key, stratum in self.strata.items():
            groups.setdefault(key[part], []).append(getattr(stratum, figure)[0])
        return {key: float(np.mean(values)) for key, values in sorted(groups.items())}


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure and its percentile interval, fractions."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Difference(Interval):
    """One model's figure less another's on the same episodes; `below` is the share of replicates under zero."""

    below: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def replicate(columns: Columns, samples: int = 1000, seed: int = 0) -> Replicates:
    """Resample the episodes `samples` times; the weights depend on `seed` and the episodes' names alone.

    Raises:
        ValueError: for fewer than 100 samples, whose outer percentiles mean nothing.
    """
    if samples < _LEAST:
        raise ValueError(f"expected at least {_LEAST} bootstrap samples, got {samples}; set samples=1000")
    strata = {}
    for s, f in sorted(set(zip(columns.seed.tolist(), columns.fold.tolist(), strict=True))):
        part = columns.where((columns.seed == s) & (columns.fold == f))
        strata[s, f] = _stratum(part, rng.numpy_rng(seed, "bootstrap", s, f), samples)
    return Replicates(seed, samples, columns.keys(), strata)


def interval(model: Replicates, figure: str | int = "miou", level: float = LEVEL) -> Interval:
    """``miou``, ``fb_iou`` or the IoU of a class, with its percentile interval at `level`."""
    values = model.values(figure)
    return Interval(float(values[0]), *_percentiles(values[1:], level))


def difference(model: Replicates, base: Replicates, figure: str | int = "miou", level: float = LEVEL) -> Difference:
    """`model` less `base`, paired: in each replicate both have the same episodes with the same weights.

    Raises:
        ValueError: if they were not measured on the same episodes, or not resampled alike.
    """
    if (model.seed, model.samples) != (base.seed, base.samples) or not np.array_equal(model.keys, base.keys):
        raise ValueError(
            f"expected two models on the same episodes with equal samples and seed, got {model.keys.shape[1]} and "
            f"{base.keys.shape[1]} entries, {model.samples} and {base.samples} samples, seeds {model.seed} and "
            f"{base.seed}; evaluate both with the same dataset.*, fold=, shots=, episodes= and seed="
        )
    values = model.values(figure) - base.values(figure)
    drawn = values[1:][~np.isnan(values[1:])]
    return Difference(float(values[0]), *_percentiles(drawn, level), float(np.mean(drawn < 0)))


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _stratum(part: Columns, generator: np.random.Generator, samples: int) -> Stratum:
    episodes, place = np.unique(part.episode, return_inverse=True)
    order = np.argsort(part.class_id, kind="stable")
    classes, starts = np.unique(part.class_id[order], return_index=True)
    part, place = part.where(order), place[order]
    ious, fb_ious = [], []
    for weights in _weights(generator, samples, len(episodes), max(1, _BLOCK // len(place))):
        weight = weights[:, place]  # of each entry: that of its episode
        shown, both, either = (
            np.add.reduceat(weight * column, starts, axis=1) for column in (1, part.intersection, part.union)
        )
        ious.append(np.where(shown > 0, _ratio(both, either), np.nan))
        foreground = _ratio(both.sum(axis=1), either.sum(axis=1))
        background = _ratio(weight @ part.background_intersection, weight @ part.background_union)
        fb_ious.append((foreground + background) / 2)
    iou = np.concatenate(ious)
    return Stratum(classes, iou, _mean(iou), np.concatenate(fb_ious))


def _weights(generator: np.random.Generator, samples: int, count: int, rows: int) -> Iterator[np.ndarray]:
    """Blocks of (<= rows, count) int64: once all ones, then `samples` rows of how often each of `count` was drawn."""
    yield np.ones((1, count), dtype=np.int64)
    for start in range(0, samples, rows):
        many = min(rows, samples - start)
        drawn = generator.integers(count, size=(many, count)) + count * np.arange(many)[:, None]
        yield np.bincount(drawn.ravel(), minlength=many * count).reshape(many, count)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Empty unions count as right, as in fss.evaluation.metrics."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of each row without its NaNs; NaN for a row of nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)

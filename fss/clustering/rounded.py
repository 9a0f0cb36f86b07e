"""Nearest centroids by products in bfloat16, where the processor multiplies that: the labels of float32, in less time.

A row of a point and one of a centroid are made so that their product is half the squared distance plus the point's own
slack, which is more than rounding can take away. So no product is below 0, and numbers of bfloat16 from 0 on are in the
order of their bits: a search among them is one among 16-bit integers, in half the memory. Whatever rounding could have
put in the wrong order is looked at again in float32, and what float32 cannot tell apart in float64 (`assign`).

Letters: N points, K centroids, D dimensions; x a point, c a centroid, x' and c' the same in bfloat16.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import torch

from fss import precision
from fss.clustering import assign

#: Products of a block: few enough for the cache, and so many that what is done once a block takes no time.
_PRODUCTS = 2**22
#: Points that are rounded at a time.
_BLOCK = 512
#: Columns of the rows beside the D: three numbers of bfloat16 hold one of float32, of the point and of the centroid.
_THREE, _BESIDE = 3, 6
#: Processors multiply so many columns at a time.
_COLUMNS = 32
#: By what share rounding to bfloat16 changes a number at most, and by what float32 rounds a sum of two, generously.
_HALF_BIT, _SUM = 2.0**-8, 2.0**-23
#: Lengths between which neither products nor what is left of them leave the range of float32.
_SHORTEST, _LONGEST = 2.0**-40, 2.0**40
#: Products below which a second look costs more than the first saves.
_FEW = 2**16
#: Centroids of which a table holds all distances.
_TABLE = 4096
#: Centroids that may be the nearest beyond which a point is compared with all; pairs that are multiplied at a time.
_MANY, _PAIRS = 32, 512


def pays(number: int) -> bool:
    """Whether a search with so many products is faster here than in float32."""
    return number >= _FEW and bool(precision._MULTIPLIES) and not torch.cuda.is_available()


class _Lengths(NamedTuple):
    """(n,) float32 lengths of rows, and of what rounding takes from them; none too small."""

    whole: torch.Tensor
    lost: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, rounded: torch.Tensor) -> _Lengths:
        """Of (n, D) float32 rows, which are written into `rounded`, a block in the cache at a time."""
        lengths = cls(torch.empty(len(rows)), torch.empty(len(rows)))
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            rounded[block] = rows[block]
            torch.linalg.vector_norm(rows[block], dim=1, out=lengths.whole[block])
            torch.linalg.vector_norm(rounded[block] - rows[block], dim=1, out=lengths.lost[block])
        return cls(*(one.mul_(1 + rows.shape[1] * _SUM) for one in lengths))


@dataclasses.dataclass(frozen=True)
class _Centroids:
    """What the search needs of (K, D) centroids."""

    points: torch.Tensor
    rows: torch.Tensor
    """(K, columns) bfloat16: -c', half of |c|^2 in three numbers, then ones."""
    halves: torch.Tensor
    """(K,) float32 halves of the squared lengths."""
    lengths: _Lengths

    @classmethod
    def of(cls, points: np.ndarray, columns: int) -> _Centroids:
        """Of (K, D) float32 centroids, which all parts of the points ask for one after the other."""
        return _prepared(points.tobytes(), points.shape, columns)

    @classmethod
    def prepare(cls, points: torch.Tensor, columns: int) -> _Centroids:
        """Of (K, D) float32 centroids, for rows of so many columns."""
        halves = (points.double().square().sum(dim=1) / 2).float()
        rows = torch.zeros(len(points), columns, dtype=torch.bfloat16)
        dims = points.shape[1]
        lengths = _Lengths.of(points, rows[:, :dims])
        rows[:, :dims].neg_()
        rows[:, dims : dims + _THREE] = _in_three(halves)
        rows[:, dims + _THREE : dims + _BESIDE] = 1
        return cls(points, rows, halves, lengths)

    @functools.cached_property
    def _apart(self) -> np.ndarray | None:
        """(K, K) float32 distances between centroids, none too small; None for more of them than memory should hold."""
        if len(self.points) > _TABLE:
            return None
        squares = 2 * self.halves
        sums = squares[:, None] + squares
        with assign.full_precision():
            apart = torch.addmm(sums, self.points, self.points.T, alpha=-2) + assign.share(self.points) * sums
        return (apart.clamp_(min=0).sqrt_() * (1 + 2.0**-20)).numpy()

    @functools.cached_property
    def reach(self) -> np.ndarray:
        """(K,) float32 distance of each centroid to the one furthest from it, none too small."""
        if self._apart is not None:
            return np.asarray(self._apart.max(axis=1))
        whole = self.lengths.whole
        return (whole + whole.max()).numpy()

    def apart(self, ours: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(p,) float32 distances of p pairs of centroids, none too small."""
        if self._apart is not None:
            return self._apart[ours, others]
        whole = self.lengths.whole.numpy()
        return whole[ours] + whole[others]


@functools.lru_cache(maxsize=1)
def _prepared(data: bytes, shape: tuple[int, int], columns: int) -> _Centroids:
    points = np.frombuffer(data, dtype=np.float32).reshape(shape)
    return _Centroids.prepare(assign.read_only(points), columns)


class Rounded:
    """(N, D) float32 points with their rows of bfloat16, made once for any centroids: half of the points' memory."""

    def __init__(self, points: np.ndarray):
        self.points = assign.read_only(points)
        number, dims = points.shape
        columns = -(-(dims + _BESIDE) // _COLUMNS) * _COLUMNS
        self._rows = torch.empty(number, columns, dtype=torch.bfloat16)
        self._rows[:, dims:] = 0
        self._rows[:, dims : dims + _THREE] = 1
        self._lengths = _Lengths.of(self.points, self._rows[:, :dims])
        self._slack = torch.full((number,), -1.0)

    @property
    def nbytes(self) -> int:
        """Bytes beside the points."""
        return self._rows.nbytes + 12 * len(self._rows)

    @property
    def _sum_error(self) -> float:
        """By what share of the largest possible squared distance the sum of a product is wrong; see `_give_slack`."""
        return (self.points.shape[1] + 4 * _BESIDE) * _SUM

    def labels(self, centroids: np.ndarray) -> np.ndarray | None:
        """(N,) int64 nearest centroids, ties to the lower one; None for lengths that bfloat16 does not take.

        Raises:
            ValueError: for centroids that are not (K, D) or not finite.
        """
        centroids = assign.checked(self.points, centroids)
        whole = self._lengths.whole
        if not len(whole):
            return np.zeros(0, dtype=np.int64)
        target = _Centroids.of(centroids, self._rows.shape[1])
        most = target.lengths.whole.max()
        if not (_SHORTEST < most < _LONGEST and whole.max() < _LONGEST):
            return None
        self._give_slack(target)
        labels = np.empty(len(whole), dtype=np.int64)
        size = max(64, _PRODUCTS // len(centroids))
        products = torch.empty(size, len(centroids), dtype=torch.bfloat16)
        left = [_Pairs(*np.zeros((2, 0), dtype=np.int64))]
        for start in range(0, len(labels), size):
            rows = slice(start, min(start + size, len(labels)))
            made = torch.mm(self._rows[rows], target.rows.T, out=products[: rows.stop - start])
            bits = made.view(torch.int16).numpy()
            labels[rows] = own = bits.argmin(axis=1)
            taken = target.lengths.lost.numpy()
            window = self._bound(rows, target.reach[own], taken[own] + taken.max(), target)
            possible = self._possible(_others(bits, own, window), start, labels, target)
            left.append(self._few(possible, labels, target))
        self._settle(_Pairs(*map(np.concatenate, zip(*left, strict=True))), labels, target)
        return labels

    def _give_slack(self, target: _Centroids) -> np.ndarray:
        """(N,) float32: more than products may be off half the squared distances, put into the rows if it is not there.

        With x c - x' c' = (x - x') c + x' (c - c') and Cauchy and Schwarz, rounding x and c changes their product by
        |x - x'| |c| + |x'| |c - c'| at most. Sums of the D + 6 products, in any order, are wrong by D + 6 times
        2**-24 of the sum of their sizes (Higham 2002, section 3.1), which is no more than (|x| + |c|)^2; halves and
        slack in three numbers by 2**-24 of themselves. A twentieth more covers what the slack adds to that itself.
        """
        (whole, lost), (length, taken) = self._lengths, (one.max() for one in target.lengths)
        sums = self._sum_error * (whole + length).square()
        least = 1.05 * (lost * length + (whole + lost) * taken + sums)
        if not bool(((self._slack >= least) & (self._slack <= 1.5 * least)).all()):
            self._slack = 1.2 * least
            dims = self.points.shape[1]
            self._rows[:, dims + _THREE : dims + _BESIDE] = _in_three(whole.square() / 2 + self._slack)
        return self._slack.numpy()

    def _bound(self, rows: np.ndarray | slice, apart: np.ndarray, taken: np.ndarray, target: _Centroids) -> np.ndarray:
        """(p,) float32: by how much rounding changes the difference of two products of each of p points.

        That is |x - x'| times the distance `apart` of the two centroids, and |x'| times what rounding has `taken` from
        both; beside it stand sums, as in `_give_slack`.
        """
        whole, lost = (one.numpy()[rows] for one in self._lengths)
        sums = 2 * self._sum_error * (whole + float(target.lengths.whole.max())) ** 2
        return 1.01 * (lost * apart + (whole + lost) * taken + sums)

    def _possible(self, found: _Others, start: int, labels: np.ndarray, target: _Centroids) -> _Pairs:
        """What a closer look leaves of the pairs of points from `start` on."""
        rows, others = start + found.pairs.rows, found.pairs.others
        ours, taken = labels[rows], target.lengths.lost.numpy()
        bound = self._bound(rows, target.apart(ours, others), taken[ours] + taken[others], target)
        left = found.products * (1 - _HALF_BIT) - found.least * (1 + 1.01 * _HALF_BIT) <= bound
        return _Pairs(rows[left], others[left])

    def _few(self, pairs: _Pairs, labels: np.ndarray, target: _Centroids) -> _Pairs:
        """The pairs of points that have few; points with many are compared with all centroids, which is faster."""
        rows, others = pairs
        begins = np.flatnonzero(np.diff(rows, prepend=-1))
        number = np.diff(begins, append=len(rows))
        if not (number > _MANY).any():
            return pairs
        chosen = rows[begins[number > _MANY]]
        labels[chosen] = assign.nearest(self.points[torch.from_numpy(chosen)], target.points)[0].numpy()
        few = np.repeat(number <= _MANY, number)
        return _Pairs(rows[few], others[few])

    def _settle(self, pairs: _Pairs, labels: np.ndarray, target: _Centroids) -> None:
        """Let the labels of the points of pairs be the nearest of their own and the others, in float32."""
        rows, others = pairs
        if not len(rows):
            return
        asked = rows[np.flatnonzero(np.diff(rows, prepend=-1))]
        row, centroid = np.concatenate([asked, rows]), np.concatenate([labels[asked], others])
        order = np.argsort(row, kind="stable")
        row, centroid = row[order], centroid[order]
        begins = np.flatnonzero(np.diff(row, prepend=-1))
        number = np.diff(begins, append=len(row))
        scores = target.halves.numpy()[centroid] - self._products(row, centroid, target.points)
        above = scores - np.repeat(np.minimum.reduceat(scores, begins), number)
        labels[row[above == 0]] = centroid[above == 0]
        lengths = self._lengths.whole.numpy()[asked]
        rounding = assign.share(self.points) * (lengths**2 + 2 * float(target.halves.max()))
        near = np.add.reduceat(2 * above <= np.repeat(rounding, number), begins, dtype=np.int64)
        unsure = torch.from_numpy(asked[near > 1])
        chosen = torch.from_numpy(labels)[unsure]
        labels[unsure.numpy()] = assign.settled(self.points[unsure], target.points, chosen, unsure >= 0).numpy()

    def _products(self, rows: np.ndarray, others: np.ndarray, centroids: torch.Tensor) -> np.ndarray:
        """(p,) float32 products of the points and centroids of p pairs, few at a time in memory that is used again."""
        ours, theirs = torch.from_numpy(rows), torch.from_numpy(others)
        products = torch.empty(len(ours))
        first, second = torch.empty(2, min(_PAIRS, len(ours)), centroids.shape[1])
        for start in range(0, len(ours), _PAIRS):
            pairs = slice(start, min(start + _PAIRS, len(ours)))
            one, other = first[: pairs.stop - start], second[: pairs.stop - start]
            torch.index_select(self.points, 0, ours[pairs], out=one)
            torch.index_select(centroids, 0, theirs[pairs], out=other)
            torch.sum(one.mul_(other), dim=1, out=products[pairs])
        return products.numpy()


class _Pairs(NamedTuple):
    """(p,) points, in order, and (p,) centroids other than their labels that may be the nearest."""

    rows: np.ndarray
    others: np.ndarray


class _Others(NamedTuple):
    """What one look at products leaves possible: p pairs, and the products of both centroids."""

    pairs: _Pairs
    least: np.ndarray
    """(p,) float32 product of the point and its label."""
    products: np.ndarray
    """(p,) float32 product of the point and the other centroid."""


def _others(bits: np.ndarray, labels: np.ndarray, window: np.ndarray) -> _Others:
    """Search the bits of (n, K) products, which are lost, for others than the (n,) labels, which have the smallest.

    Before it was rounded, the nearest centroid's product was no further than the (n,) window above the label's, and
    rounding keeps order.
    """
    point = np.arange(len(bits))
    least = _numbers(bits[point, labels])
    limits = torch.from_numpy(least * (1 + 1.01 * _HALF_BIT) + window).bfloat16().view(torch.int16).numpy()
    bits[point, labels] = np.iinfo(np.int16).max
    several = np.flatnonzero(bits.min(axis=1) <= limits)
    left = bits[several]
    place = np.flatnonzero(left <= limits[several, None])
    row, others = np.divmod(place, bits.shape[1])
    rows = several[row]
    return _Others(_Pairs(rows, others), least[rows], _numbers(left.ravel()[place]))


def _numbers(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers of the bits of bfloat16 ones."""
    return (bits.astype(np.int32) << 16).view(np.float32)


def _in_three(numbers: torch.Tensor) -> torch.Tensor:
    """(n, 3) bfloat16 numbers whose sums are the (n,) float32 ones."""
    parts, rest = [], numbers
    for _ in range(_THREE):
        parts.append(rest.bfloat16())
        rest = rest - parts[-1].float()
    return torch.stack(parts, dim=1)

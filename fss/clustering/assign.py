"""Nearest centroid of every point: on CPUs in bfloat16 where they multiply that, else FAISS; FAISS or torch on GPUs.

A label depends on its point and the centroids alone. Fast searches round a distance by the place that its point has in
the call, by the call's size and by the number of threads, and so equal points can get two labels. Where the two nearest
centroids are closer to each other than that rounding, the label is found again: after bfloat16 in float32, after
float32 in float64. So all ways give the same labels.

Letters: N points, K centroids, D dimensions.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from fss import precision as lower
from fss.precision import Rounding, products_apart

logger = logging.getLogger(__name__)

#: Scores that a block of the matrix product makes: few enough that a CPU's (8 MiB) or GPU's (64 MiB) cache keeps them.
_CPU_SCORES, _GPU_SCORES = 2**21, 2**24
#: The same of a product in bfloat16, and the points that are rounded at a time where there is no product.
_BF16_SCORES, _BF16_ROWS = 2**19, 1024
#: Centroids that may be possible for a point, beyond which all are looked at; and pairs looked at at a time.
_MANY, _PAIRS = 32, 256
#: Scores below which a search in float32 is not worth a second look at what bfloat16 left open.
_FEW_SCORES = 2**16
#: Points whose differences to their centroids are in memory at a time.
_ROWS = 2**12
#: Run in a process of its own, because a wheel of FAISS made for another CUDA aborts the process that uses it.
_PROBE = """
import faiss, numpy
assert faiss.get_num_gpus() > 0
points = numpy.random.default_rng(0).standard_normal((4096, 32)).astype("float32")
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 32)
index.add(points[:256])
assert (index.search(points, 1)[1][:256, 0] == numpy.arange(256)).all()
"""


def nearest(
    points: torch.Tensor, centroids: torch.Tensor, block: int | None = None, *, precision: str = "fp32"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest centroid of each point, computed on the device that holds them, by a blocked matrix product.

    Args:
        points: (N, D), of any floating type.
        centroids: (K, D) on the same device.
        block: points at a time; by default as many as keep a block's scores in the device's cache.
        precision: `fp32` (never TF32, whatever torch is set to) or `bf16` (inputs rounded, sums in float32).

    Returns:
        (N,) int64 labels, ties to the lower one, and (N,) float32 squared distances (with `bf16`, those of the rounded
        points to rounded centroids).

    Raises:
        ValueError: for tensors that are not 2-D, disagree in D or device, hold NaN or infinity, or for no centroids.
    """
    _check(points, centroids)
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"expected a precision of fp32 or bf16, got {precision!r}")
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    target = centroids.to(kind)
    norms = target.float().square().sum(dim=1)
    scores = _GPU_SCORES if points.is_cuda else _CPU_SCORES
    block = block or max(64, scores // len(centroids))
    labels = points.new_empty(len(points), dtype=torch.int64)
    distances = points.new_empty(len(points), dtype=torch.float32)
    with _full_precision():
        for start in range(0, len(points), block):
            part = points[start : start + block].to(kind)
            label, apart = _first_two(torch.add(norms, _product(part, target), alpha=-2))
            label = _settled(part, target, label, apart <= _rounding(part.float(), norms.max()))
            labels[start : start + block] = label
            distances[start : start + block] = _squares(part, target, label)
    if not bool(distances.isfinite().all()):
        raise ValueError(_not_finite(int((~points.isfinite().all(dim=1)).sum()), len(points)))
    return labels, distances


def _rounding(rows: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """(n,) by how much two expanded squared distances of (n, D) rows may come out wrongly apart.

    `most` is the largest squared length of a centroid. Each distance is a sum of D + 2 rounded products, none larger
    than the squared lengths together (Higham 2002, section 3.1); half an `eps` a rounding.
    """
    return _share(rows) * (torch.linalg.vector_norm(rows, dim=1).square_() + most)


def _share(rows: torch.Tensor) -> float:
    """The factor of `_rounding`."""
    return 2 * (rows.shape[1] + 4) * torch.finfo(rows.dtype).eps


def _first_two(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) int64 places of the smallest of (n, K) scores, and how far above it the next one is; the scores are lost.

    NumPy's search of a smallest one takes a tenth of torch's on a CPU.
    """
    if scores.is_cuda:
        least, places = scores.topk(min(2, scores.shape[1]), dim=1, largest=False)
        return places[:, 0], least[:, -1] - least[:, 0] if scores.shape[1] > 1 else torch.full_like(least[:, 0], np.inf)
    values, rows = scores.numpy(), np.arange(len(scores))
    places = values.argmin(axis=1)
    least = values[rows, places]
    values[rows, places] = np.inf
    with np.errstate(invalid="ignore"):  # what is not finite is refused by whoever asked
        return torch.from_numpy(places), torch.from_numpy(values.min(axis=1) - least)


def _settled(points: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor, unsure: torch.Tensor) -> torch.Tensor:
    """The labels, those of `unsure` points found again in float64; what that cannot tell apart is a tie."""
    doubtful = unsure.nonzero()[:, 0]
    if not len(doubtful):
        return labels
    labels, target = labels.clone(), centroids.double()
    norms = target.square().sum(dim=1)
    for chosen in doubtful.split(max(64, _CPU_SCORES // len(target))):
        rows = points[chosen].double()
        scores = torch.addmm(norms, rows, target.T, alpha=-2)
        least = scores.amin(dim=1) + _rounding(rows, norms.max())
        labels[chosen] = (scores <= least[:, None]).to(torch.uint8).argmax(dim=1)
    return labels


def _squares(points: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(N,) float32 squared distance of each point to the centroid of its label, the difference squared."""
    squares = torch.empty(len(points), dtype=torch.float32, device=points.device)
    for start in range(0, len(points), _ROWS):
        rows = slice(start, start + _ROWS)
        squares[rows] = (points[rows].float() - centroids[labels[rows]].float()).square_().sum(dim=1)
    return squares


def _product(points: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """(n, K) float32 inner products; GPUs add products of bfloat16 in float32 by themselves, CPUs are told to."""
    if points.dtype == torch.bfloat16 and points.is_cuda:
        return torch.mm(points, centroids.T, out_dtype=torch.float32)
    return points.float() @ centroids.float().T


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """float32 products in float32: neither TF32 on GPUs nor bfloat16 on CPUs."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check(points: Any, centroids: Any) -> None:
    for array in (points, centroids):
        if array.ndim != 2:
            raise ValueError(f"expected an array of shape (number, dimensions), got {tuple(array.shape)}")
    if points.shape[1] != centroids.shape[1]:
        shapes = f"{tuple(points.shape)} and {tuple(centroids.shape)}"
        raise ValueError(f"expected points and centroids of one dimension, got {shapes}")
    if not len(centroids):
        raise ValueError("expected at least one centroid, got none")
    if isinstance(points, torch.Tensor) and points.device != centroids.device:
        raise ValueError(f"expected points and centroids on one device, got {points.device} and {centroids.device}")


def _not_finite(bad: int, number: int) -> str:
    if not bad:
        return "expected finite centroids and squared distances, got NaN or more than float32 holds; scale the points"
    return f"expected finite numbers, got {bad} of {number} rows with NaN or infinity; check the backbone's weights"


def finite_rows(array: np.ndarray) -> np.ndarray:
    """`array` as (N, D) contiguous float32.

    Raises:
        ValueError: if it is not 2-D or not finite, saying how many rows are not.
    """
    array = np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"expected an array of shape (number, dimensions), got {array.shape}")
    bad = int((~np.isfinite(array).all(axis=1)).sum())
    if bad:
        raise ValueError(_not_finite(bad, len(array)))
    return array


def assign(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of each point: (N,) int64 labels and (N,) float32 squared distances, ties to the lower label.

    Raises:
        ValueError: for points or centroids that are not 2-D, disagree in D, or are not finite.
    """
    labels = labels_of(points, centroids)
    points = np.ascontiguousarray(points, dtype=np.float32)
    rows, target = _read_only(points), _read_only(np.ascontiguousarray(centroids, dtype=np.float32))
    squares = _squares(rows, target, torch.from_numpy(labels)).numpy()
    if not np.isfinite(squares).all():
        raise ValueError(_not_finite(0, len(points)))
    return labels, squares


def labels_of(points: np.ndarray, centroids: np.ndarray, known: Callable[[], Rounding] | None = None) -> np.ndarray:
    """(N,) int64: the nearest centroid of each point; ties to the lower one.

    With a GPU, FAISS on it if a trial in another process went well, else `nearest`. Without one, bfloat16 where the
    processor multiplies that, else FAISS, else `nearest`. `known` gives the `roundings` of the points, where somebody
    keeps them.

    Raises:
        ValueError: for points or centroids that are not 2-D, disagree in D, or are not finite.
    """
    points = np.ascontiguousarray(points, dtype=np.float32)
    centroids = finite_rows(centroids)
    _check(points, centroids)
    if _in_bf16(len(points) * len(centroids)):
        return _labels_bf16(_read_only(points), _read_only(centroids), known).numpy()
    index = _faiss_index(centroids.shape[1])
    if index is None:
        return _labels_torch(points, centroids)
    index.add(centroids)
    squares, nearest_two = index.search(points, min(2, len(centroids)))
    if not (len(squares) == 0 or (nearest_two[:, 0].min() >= 0 and np.isfinite(squares[:, 0]).all())):
        finite_rows(points)  # FAISS has no label for NaN
        raise ValueError(_not_finite(0, len(points)))
    labels = torch.from_numpy(np.ascontiguousarray(nearest_two[:, 0]))
    if len(centroids) > 1:
        rows, target = _read_only(points), _read_only(centroids)
        apart = torch.from_numpy(squares[:, 1] - squares[:, 0])
        labels = _settled(rows, target, labels, apart <= _rounding(rows, target.square().sum(dim=1).max()))
    return labels.numpy()


def _in_bf16(scores: int) -> bool:
    return scores >= _FEW_SCORES and not torch.cuda.is_available() and lower.multiplies(torch.device("cpu"))


def roundings(points: np.ndarray) -> Rounding:
    """Of all (N, D) float32 points, a block in bfloat16 at a time."""
    blocks = [Rounding.of(part, part.bfloat16()) for part in _read_only(points).split(_BF16_ROWS)]
    return Rounding(torch.cat([one.lengths for one in blocks]), torch.cat([one.lost for one in blocks]))


def _labels_bf16(points: torch.Tensor, centroids: torch.Tensor, known: Callable[[], Rounding] | None) -> torch.Tensor:
    """(N,) labels from products in bfloat16; where their bounds leave several open, these are looked at in float32.

    A score is half a centroid's squared length less its product with the point. Making it of the product in float32 is
    wrong by 2**-24 of what it is made of.

    Raises:
        ValueError: for points that are not finite.
    """
    of_points = known() if known else roundings(points.numpy())
    if not bool(of_points.lengths.square().isfinite().all()):
        raise ValueError(_not_finite(int((~points.isfinite().all(dim=1)).sum()), len(points)))
    target = centroids.bfloat16()
    of_target = Rounding.of(centroids, target)
    apart = products_apart(of_points, of_target, points.shape[1])
    most = of_target.lengths.max()
    margins = (2 * apart + 2.0**-21 * most * (of_points.lengths + most)).numpy()
    halves = _halves(centroids)
    size = max(256, _BF16_SCORES // len(centroids))
    part = torch.empty(size, points.shape[1], dtype=torch.bfloat16)
    products = torch.empty(size, len(centroids), dtype=torch.bfloat16)
    scores = torch.empty(size, len(centroids))
    labels, left, open_ = np.empty(len(points), dtype=np.int64), list[np.ndarray](), list[_Open]()
    for start in range(0, len(points), size):
        stop = min(start + size, len(points))
        own, made = part[: stop - start].copy_(points[start:stop]), scores[: stop - start]
        made.copy_(torch.mm(own, target.T, out=products[: stop - start]))
        labels[start:stop], rows, several = _proven(torch.sub(halves, made, out=made).numpy(), margins[start:stop])
        left.append(start + rows)
        open_.append(several)
    chosen = torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *left]))
    found = torch.from_numpy(labels)
    if len(chosen):
        rounding = _share(points) * (of_points.lengths[chosen].square() + 2 * halves.max())
        found[chosen] = _among(points, chosen, centroids, rounding, _Open.joined(open_))
    return found


def _halves(centroids: torch.Tensor) -> torch.Tensor:
    """(K,) float32 halves of the squared lengths."""
    return (centroids.double().square().sum(dim=1) / 2).float()


class _Open(NamedTuple):
    """Centroids that are possible for points, in the order of the points: how many for each, and which."""

    number: np.ndarray
    centroids: np.ndarray

    @classmethod
    def joined(cls, parts: list[_Open]) -> _Open:
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _proven(scores: np.ndarray, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Open]:
    """(n,) labels by (n, K) scores, the rows where others lie within the (n,) margins, and which these are."""
    rows = np.arange(len(scores))
    labels = scores.argmin(axis=1)
    least = scores[rows, labels]
    limits = least + margins
    scores[rows, labels] = np.inf
    left = np.flatnonzero(scores.min(axis=1) <= limits)
    scores[left, labels[left]] = least[left]
    possible = scores[left] <= limits[left, None]
    return labels, left, _Open(possible.sum(axis=1), np.nonzero(possible)[1])


def _among(
    points: torch.Tensor, chosen: torch.Tensor, centroids: torch.Tensor, rounding: torch.Tensor, several: _Open
) -> torch.Tensor:
    """(n,) labels of the n `chosen` of (N, D) points, in float32 among several centroids for each.

    Those nearer to each other than the (n,) `rounding` are found in float64.
    """
    number = several.number
    labels = torch.empty(len(chosen), dtype=torch.int64)
    for rows in torch.from_numpy(np.flatnonzero(number > _MANY)).split(_ROWS):
        labels[rows] = nearest(points[chosen[rows]], centroids)[0]
    few = np.flatnonzero(number <= _MANY)
    if not len(few):
        return labels
    theirs = torch.from_numpy(several.centroids[np.repeat(number <= _MANY, number)])
    number, asked = number[few], chosen[few]
    row = np.repeat(np.arange(len(few)), number)
    place = np.arange(len(row)) - np.repeat(number.cumsum() - number, number)
    possible = torch.zeros(len(few), int(number.max()), dtype=torch.int64)
    scores = torch.full(possible.shape, np.inf)
    possible[row, place] = theirs
    scores[row, place] = _halves(centroids)[theirs] - _pairs(points, centroids, asked[row], theirs)
    first, apart = _first_two(scores)
    found = possible[torch.arange(len(few)), first]
    doubtful = (2 * apart <= rounding[few]).nonzero()[:, 0]
    found[doubtful] = _settled(points[asked[doubtful]], centroids, found[doubtful], doubtful >= 0)
    labels[few] = found
    return labels


def _pairs(points: torch.Tensor, centroids: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """(n,) float32 products of the points and the centroids of n pairs, few at a time in memory that is used again."""
    products = torch.empty(len(ours))
    first, second = torch.empty(2, min(_PAIRS, len(ours)), points.shape[1])
    for start in range(0, len(ours), _PAIRS):
        pairs = slice(start, min(start + _PAIRS, len(ours)))
        one, other = first[: pairs.stop - start], second[: pairs.stop - start]
        torch.index_select(points, 0, ours[pairs], out=one)
        torch.index_select(centroids, 0, theirs[pairs], out=other)
        torch.sum(one.mul_(other), dim=1, out=products[pairs])
    return products


def _read_only(array: np.ndarray) -> torch.Tensor:
    """The same memory as a tensor that nobody writes to: arrays that come from Ray's store cannot be written."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return torch.from_numpy(array)


def _faiss_index(dims: int) -> Any:
    """An empty index of FAISS on this process's device; None where the torch path is to be taken."""
    try:
        import faiss
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return faiss.IndexFlatL2(dims)
    return faiss.GpuIndexFlatL2(_gpu_resources(), dims) if faiss_gpu_works() else None


@functools.cache
def _gpu_resources() -> Any:
    import faiss

    return faiss.StandardGpuResources()


@functools.cache
def faiss_gpu_works(seconds: float = 120) -> bool:
    """Whether FAISS finds neighbours on this machine's GPU, tried once a process in a process of its own."""
    if importlib.util.find_spec("faiss") is None or not torch.cuda.is_available():
        return False
    try:
        trial = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        logger.warning("FAISS did not answer on the GPU within %g s: using torch there", seconds)
        return False
    if trial.returncode:
        last = trial.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        logger.warning("FAISS fails on the GPU (exit status %d, %s): using torch there", trial.returncode, last[0])
    return trial.returncode == 0


def _labels_torch(points: np.ndarray, centroids: np.ndarray, upload: int = 2**20) -> np.ndarray:
    """`nearest` of arrays, on the GPU where there is one, `upload` points at a time."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    target = torch.from_numpy(centroids).to(device)
    labels = np.empty(len(points), dtype=np.int64)
    for start in range(0, len(points), upload):
        rows = slice(start, start + upload)
        labels[rows] = nearest(torch.from_numpy(points[rows]).to(device), target)[0].cpu().numpy()
    return labels

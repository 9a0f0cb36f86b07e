"""Nearest centroid of every point: FAISS on CPUs, FAISS or a blocked matrix product on GPUs.

A label depends on its point and the centroids alone. Fast searches round a distance by the place that its point has in
the call, by the call's size and by the number of threads, and so equal points can get two labels. Where the two nearest
centroids are closer to each other than that rounding, the label is found again in float64.

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
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

#: Scores that a block of the matrix product makes: few enough that a CPU's (8 MiB) or GPU's (64 MiB) cache keeps them.
_CPU_SCORES, _GPU_SCORES = 2**21, 2**24
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
    with full_precision():
        for start in range(0, len(points), block):
            part = points[start : start + block].to(kind)
            apart = torch.add(norms, _product(part, target), alpha=-2)
            best, label = apart.min(dim=1)
            near = apart <= (best + rounding(part.float(), norms.max()))[:, None]
            label = settled(part, target, label, near.sum(dim=1) > 1)
            labels[start : start + block] = label
            distances[start : start + block] = _squares(part, target, label)
    if not bool(distances.isfinite().all()):
        raise ValueError(_not_finite(int((~points.isfinite().all(dim=1)).sum()), len(points)))
    return labels, distances


def rounding(rows: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """(n,) by how much two expanded squared distances of (n, D) rows may come out wrongly apart.

    `most` is the largest squared length of a centroid.
    """
    return share(rows) * (torch.linalg.vector_norm(rows, dim=1).square_() + most)


def share(rows: torch.Tensor) -> float:
    """The same as a share of the squared lengths of the row and the centroid together.

    Each distance is a sum of D + 2 rounded products, none larger than these (Higham 2002, section 3.1); half an `eps` a
    rounding.
    """
    return 2 * (rows.shape[1] + 4) * torch.finfo(rows.dtype).eps


def settled(points: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor, unsure: torch.Tensor) -> torch.Tensor:
    """The labels, those of `unsure` points found again in float64; what that cannot tell apart is a tie."""
    doubtful = unsure.nonzero()[:, 0]
    if not len(doubtful):
        return labels
    labels, target = labels.clone(), centroids.double()
    norms = target.square().sum(dim=1)
    for chosen in doubtful.split(max(64, _CPU_SCORES // len(target))):
        rows = points[chosen].double()
        scores = torch.addmm(norms, rows, target.T, alpha=-2)
        least = scores.amin(dim=1) + rounding(rows, norms.max())
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
def full_precision() -> Iterator[None]:
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


def checked(points: Any, centroids: np.ndarray) -> np.ndarray:
    """The centroids as contiguous float32.

    Raises:
        ValueError: for points or centroids that are not 2-D or disagree in D, or centroids that are not finite.
    """
    centroids = finite_rows(centroids)
    _check(points, torch.from_numpy(centroids) if isinstance(points, torch.Tensor) else centroids)
    return centroids


def assign(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of each point: (N,) int64 labels and (N,) float32 squared distances, ties to the lower label.

    Raises:
        ValueError: for points or centroids that are not 2-D, disagree in D, or are not finite.
    """
    points = np.ascontiguousarray(points, dtype=np.float32)
    labels, centroids = labels_of(points, centroids), np.ascontiguousarray(centroids, dtype=np.float32)
    squares = _squares(read_only(points), read_only(centroids), torch.from_numpy(labels)).numpy()
    if not np.isfinite(squares).all():
        raise ValueError(_not_finite(0, len(points)))
    return labels, squares


def labels_of(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(N,) int64: the nearest centroid of each point; ties to the lower one.

    With a GPU, FAISS on it if a trial in another process went well, else `nearest`; without one FAISS, else `nearest`.

    Raises:
        ValueError: for points or centroids that are not 2-D, disagree in D, or are not finite.
    """
    points = np.ascontiguousarray(points, dtype=np.float32)
    centroids = checked(points, centroids)
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
        rows, target = read_only(points), read_only(centroids)
        apart = torch.from_numpy(squares[:, 1] - squares[:, 0])
        labels = settled(rows, target, labels, apart <= rounding(rows, target.square().sum(dim=1).max()))
    return labels.numpy()


def read_only(array: np.ndarray) -> torch.Tensor:
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

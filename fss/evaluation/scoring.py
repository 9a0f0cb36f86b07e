"""From margins of cells to labels of pixels and counts.

Enlarging is a product with two interpolation matrices, at the speed of the machine's matrix products and on any device;
counting is done on bool maps, a few microseconds for a photo.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch

from fss.evaluation.metrics import Counts
from fss.imaging.images import VOID


@functools.lru_cache(maxsize=512)
def interpolation(cells: int, pixels: int, corners: bool) -> torch.Tensor:
    """(pixels, cells) float32: row p holds the bilinear weights of pixel p, as in `fss.grid.enlarge`."""
    place = np.arange(pixels, dtype=np.float64)
    place = place * (cells - 1) / max(pixels - 1, 1) if corners else ((place + 0.5) * cells / pixels - 0.5).clip(min=0)
    low = np.minimum(np.floor(place).astype(int), cells - 1)
    high = np.minimum(low + 1, cells - 1)
    share = (place - low).astype(np.float32)
    weights = np.zeros((pixels, cells), dtype=np.float32)
    rows = np.arange(pixels)
    np.add.at(weights, (rows, low), 1 - share)
    np.add.at(weights, (rows, high), share)
    return torch.from_numpy(weights)


def enlarge(margins: torch.Tensor, size: tuple[int, int], corners: bool) -> torch.Tensor:
    """(..., h, w) values of cells to (..., *size) at the pixels, bilinear."""
    height, width = margins.shape[-2:]
    down = interpolation(height, size[0], corners).to(margins.device)
    right = interpolation(width, size[1], corners).to(margins.device)
    return down @ (margins @ right.T)


def predict(margins: torch.Tensor, size: tuple[int, int], corners: bool) -> np.ndarray:
    """Labels of pixels from margins of cells.

    Args:
        margins: (E, N, h, w) float32, foreground minus background logit of each way.
        size: (H, W) of the answer.
        corners: the cells' geometry, see `fss.grid`.

    Returns:
        (E, H, W) uint8: 0 where no margin is above zero, else 1 + the way with the largest one. A head of one way is
        thus asked once for each way, as the field extends its two-class models.
    """
    if margins.shape[1] == 1:
        large = enlarge(margins[:, 0], size, corners)
        above = large.numpy() > 0 if large.device.type == "cpu" else (large > 0).cpu().numpy()  # numpy's is faster
        return above.view(np.uint8)
    best, way = enlarge(margins, size, corners).max(dim=1)
    return torch.where(best > 0, way + 1, 0).to(torch.uint8).cpu().numpy()


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is right at the pixels of one query, made ready for counting: (H, W) bool maps and their sums."""

    ways: tuple[np.ndarray, ...]
    thing: np.ndarray
    """Pixels of any way."""
    valid: np.ndarray
    areas: tuple[int, ...]
    total: int

    @classmethod
    def of(cls, labels: np.ndarray, ways: int) -> Truth:
        """From (H, W) labels in {0, .., ways, 255}: background, the ways, void."""
        maps = tuple(labels == way + 1 for way in range(ways))
        valid = labels != VOID
        thing = maps[0] if ways == 1 else valid & (labels > 0)
        return cls(maps, thing, valid, tuple(map(_sum, maps)), _sum(valid))

    @property
    def nbytes(self) -> int:
        """Memory."""
        return sum(array.nbytes for array in (*self.ways, self.thing, self.valid))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.valid.shape[0], self.valid.shape[1]


def count(labels: np.ndarray, truth: Truth) -> list[Counts]:
    """Counts of one (H, W) uint8 prediction, a row for each way; equal to those of `fss.evaluation.metrics.count`."""
    maps = [labels.view(bool)] if len(truth.ways) == 1 else [labels == way + 1 for way in range(len(truth.ways))]
    both = [_sum(yes & real) for yes, real in zip(maps, truth.ways, strict=True)]
    predicted = [_sum(yes & truth.valid) for yes in maps]
    thing = both[0] if len(maps) == 1 else _sum((labels > 0) & truth.thing)
    union = sum(predicted) + sum(truth.areas) - thing
    background, background_union = truth.total - union, truth.total - thing
    return [
        Counts(b, p + area - b, background * (way == 0), background_union * (way == 0), p, area)
        for way, (b, p, area) in enumerate(zip(both, predicted, truth.areas, strict=True))
    ]


def _sum(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))

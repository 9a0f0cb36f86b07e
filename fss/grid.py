"""Where the cells of a feature grid lie in the image, and how masks, logits and labels move between the two.

Two geometries (`corners`): in convolutional networks with symmetric padding and inputs of 32k+1 pixels the cells'
centres are the pixels 0, stride, ..., S-1, the outermost on the image's border (`corners=True`); in transformers and
VGG the cells tile the image (`corners=False`). Mixing them up moves every mask by up to half a stride.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F

_FINE = 8
#: Weights closer than this are equal.
_TIE = 1e-6


def cells(mask: np.ndarray, size: int, corners: bool) -> torch.Tensor:
    """An (H, W) mask in {0, 1, 255} as (2, size, size) float32: each cell's shares of background and of foreground.

    Void pixels are in neither share, so what is weighted by the shares never counts them.
    """
    return cells_of(torch.from_numpy(mask)[None], size, corners)[0]


def cells_of(masks: torch.Tensor, size: int, corners: bool) -> torch.Tensor:
    """The same of (N, H, W) masks: (N, 2, size, size)."""
    shares = torch.stack([masks == 0, masks == 1], dim=1).float()
    if not corners:
        return F.adaptive_avg_pool2d(shares, size)
    side = (size - 1) * _FINE + 1
    fine = F.interpolate(shares, size=(side, side), mode="nearest-exact")
    return F.avg_pool2d(fine, _FINE + 1, _FINE, _FINE // 2, count_include_pad=False)


def enlarge(values: torch.Tensor, size: tuple[int, int], corners: bool) -> torch.Tensor:
    """(B, C, h, w) logits or votes of cells to (B, C, *size) float32 at the pixels, bilinear."""
    return F.interpolate(values.float(), size=size, mode="bilinear", align_corners=corners)


def enlarge_labels(labels: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """(h, w) labels to (*size) uint16: every label's indicator is enlarged and the strongest wins: smooth borders.

    At most four cells have a say in a pixel. Where they name no more than two labels, the share of one says it all.
    Ties go to the lower label.
    """
    (top, _, down), (left, _, across) = (
        _between(full, number, corners) for full, number in zip(size, labels.shape, strict=True)
    )
    padded = np.pad(labels.astype(np.uint16), ((0, 1), (0, 1)), "edge")
    four = np.stack([padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]])
    low, high = four.min(axis=0), four.max(axis=0)
    corner = (four == low)[:, :, left]
    upper, lower = (corner[i] * (1 - across) + corner[i + 1] * across for i in (0, 2))
    share = upper[top] + (lower - upper)[top] * down[:, None]
    enlarged = np.where(share >= 0.5 - _TIE, low[top][:, left], high[top][:, left])
    rows, columns = np.nonzero(((four != low) & (four != high)).any(axis=0)[top][:, left])
    enlarged[rows, columns] = _strongest(four[:, top[rows], left[columns]], down[rows], across[columns])
    return enlarged


def _strongest(four: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The label of the largest weight of (4, n) labels of the cells around n pixels, by the shares of the second."""
    weights = np.stack([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
    votes = weights.copy()
    for one, other in itertools.combinations(range(4), 2):
        same = four[one] == four[other]
        votes[one] += weights[other] * same
        votes[other] += weights[one] * same
    return np.where(votes >= votes.max(axis=0) - _TIE, four, np.iinfo(four.dtype).max).min(axis=0)


def nearest_cells(size: tuple[int, ...], number: tuple[int, int], corners: bool) -> np.ndarray:
    """The cell of a grid of `number` (h, w) that each pixel of an image of `size` (H, W) is nearest to: (H, W) int64.

    A cell's number is row * w + column.
    """
    places = [
        np.where(share < 0.5, low, high)
        for low, high, share in (_between(full, cells, corners) for full, cells in zip(size, number, strict=True))
    ]
    return places[0][:, None] * number[1] + places[1]


def _between(full: int, number: int, corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two cells on either side of each of `full` pixels, and the share of the second: bilinear enlargement."""
    pixels = np.arange(full)
    if corners:
        place = pixels * ((number - 1) / max(full - 1, 1))
    else:
        place = np.clip((pixels + 0.5) * (number / full) - 0.5, 0, number - 1)
    low = np.minimum(place.astype(np.int64), max(number - 2, 0))
    return low, np.minimum(low + 1, number - 1), place - low


def sample_labels(labels: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """The values of (H, W) labels at the centres of the cells of a grid of `size` (h, w)."""
    index = [_centres(full, number, corners) for full, number in zip(labels.shape, size, strict=True)]
    return labels[np.ix_(*index)]


def _centres(full: int, number: int, corners: bool) -> np.ndarray:
    if corners:
        return np.rint(np.linspace(0, full - 1, number)).astype(int)
    return ((np.arange(number) + 0.5) * full / number).astype(int)

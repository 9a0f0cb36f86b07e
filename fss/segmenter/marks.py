"""Marks in place of a mask: a box around a thing, or points on it and beside it, filled by the model's own features.

The model is asked about the support itself: what is marked is the mask of a support, and the same image is the query.
Asking again about the answer made it worse. Borders are the model's own: supports are seen by its cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fss.imaging.images import VOID
from fss.imaging.inputs import Picture, as_image
from fss.segmenter import Segmenter

#: The radius of a point, and the width of the border that is beside the thing, as shares of the longer side.
_RADIUS, _BORDER = 0.025, 0.04


def of_box(segmenter: Segmenter, image: Picture, box: Sequence[float]) -> np.ndarray:
    """(H, W) uint8 mask in {0, 1} of the thing in `box`, the whole box where the model sees nothing in it.

    Args:
        segmenter: a loaded model.
        image: of any size, see `fss.imaging.inputs`.
        box: left, top, right and bottom, pixels of the upright image; the last two are outside.

    Raises:
        ValueError: for what is no image, no four numbers, or a box without a pixel of it.
    """
    shown = as_image(image)
    sides = _numbers(box)
    if sides.shape != (4,):
        raise ValueError(f"expected a box of four numbers [left,top,right,bottom], got {box}")
    left, top, right, bottom = map(round, sides.tolist())
    inside = np.zeros((shown.height, shown.width), np.uint8)
    inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
    if not inside.any() or inside.all():
        raise ValueError(
            f"expected a box [left,top,right,bottom] within {shown.width}x{shown.height} that leaves something "
            f"outside, got {sides.tolist()}"
        )
    thing = segmenter.segment(shown, shown, inside, edges=False) & inside
    return thing if thing.any() else inside


def of_points(segmenter: Segmenter, image: Picture, points: Sequence[Sequence[float]]) -> np.ndarray:
    """(H, W) uint8 mask in {0, 1} of the thing that `points` lie on.

    Args:
        segmenter: a loaded model.
        image: of any size, see `fss.imaging.inputs`.
        points: (x, y, side) each, pixels of the upright image; side 1 = on the thing, 0 = beside it. The image's
            border is taken to be beside it, but around points on the thing.

    Raises:
        ValueError: for what is no image, no points, a point outside of it, or if none is on the thing.
    """
    shown = as_image(image)
    seeds = _seeds((shown.height, shown.width), points)
    return np.where(seeds == VOID, segmenter.segment(shown, shown, seeds, edges=False), seeds)


def _seeds(size: tuple[int, int], points: Sequence[Sequence[float]]) -> np.ndarray:
    """(H, W) uint8: 1 and 0 in a disc around each point, 255 elsewhere."""
    height, width = size
    table = _numbers(points)
    if table.ndim != 2 or table.shape[1] != 3 or not (table[:, 2] == 1).any() or not np.isin(table[:, 2], (0, 1)).all():
        raise ValueError(f"expected points [x,y,side] with side 1 on the thing or 0 beside it, one on it, got {points}")
    if any(not (0 <= x < width and 0 <= y < height) for x, y, _ in table.tolist()):
        raise ValueError(f"expected points within {width}x{height}, got {points}")
    rows, columns = np.ogrid[:height, :width]
    seeds = np.full(size, VOID, np.uint8)
    border = max(1, round(_BORDER * max(size)))
    seeds[:border], seeds[-border:], seeds[:, :border], seeds[:, -border:] = 0, 0, 0, 0
    for x, y, side in table.tolist():
        seeds[(rows - y) ** 2 + (columns - x) ** 2 <= max(1, _RADIUS * max(size)) ** 2] = int(side)
    return seeds


def _numbers(given: Any) -> np.ndarray:
    """Finite float64 numbers of lists, arrays or tensors; an array without axes, which is neither, of anything else."""
    try:
        table = np.array(given.tolist() if isinstance(given, torch.Tensor) else given, dtype=np.float64)
    except (ValueError, TypeError):
        return np.array(0.0)
    return table if np.isfinite(table).all() else np.array(0.0)

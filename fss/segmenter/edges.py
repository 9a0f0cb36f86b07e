"""Borders of a mask along those of the photo.

The cells of a backbone are some 16 pixels wide, so an answer's borders are soft, and cut corners. Pixels that look the
same and lie together, a superpixel, mostly belong to one thing: here they share one probability.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fss import grid
from fss.labelling.segments.superpixel import superpixels

#: Pixels of the longer side of what is cut into superpixels; finer cuts cost more and gave no better masks.
SIDE = 240
#: The least IoU with the mask before; below it the thing is lost in its surroundings, as in fog or noise.
_LEAST = 0.5


def side_of(size: tuple[int, int], tile: int) -> int:
    """The side at which an image of `size` (width, height) is cut that was seen in tiles: as fine as each by itself."""
    return round(SIDE * max(1.0, max(size) / tile))


def sharpened(photo: Image.Image, probabilities: np.ndarray, threshold: float = 0.5, side: int = SIDE) -> np.ndarray:
    """(H, W) uint8 in {0, 1}: 1 where the mean of `probabilities` in a superpixel is above `threshold`.

    Where that would be another mask than the one of the probabilities themselves, it is the latter.

    Args:
        photo: RGB, upright.
        probabilities: (H, W) float32 in [0, 1], of the photo's size.
        threshold: in (0, 1).
        side: pixels of the longer side at which the photo is cut; borders are interpolated from there.
    """
    mask = probabilities > threshold
    cut = superpixels(photo, side)
    shares = grid.enlarge(torch.from_numpy(probabilities)[None, None], cut.shape, corners=False)[0, 0].numpy()
    means = np.bincount(cut.ravel(), shares.ravel()) / np.bincount(cut.ravel())
    fine = grid.enlarge(torch.from_numpy(means[cut])[None, None], (photo.height, photo.width), corners=False)
    sharp = fine[0, 0].numpy() > threshold
    alike = (sharp & mask).sum() >= _LEAST * (sharp | mask).sum()
    return (sharp if alike else mask).astype(np.uint8)

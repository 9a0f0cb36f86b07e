"""Masks of cells brought to the pixels of the photo, where its superpixels have the last word."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fss import grid
from fss.labelling.segments.superpixel import superpixels


def sharpen(photo: Image.Image, soft: np.ndarray, corners: bool) -> np.ndarray:
    """(H, W) bool in the photo's size: the superpixels whose mean of a (h, w) mask in [0, 1] is at least a half.

    `corners` is the geometry of the mask's cells, see `fss.grid`.
    """
    cut = superpixels(photo)
    shares = enlarged(soft, cut.shape, corners)
    means = np.bincount(cut.ravel(), shares.ravel()) / np.bincount(cut.ravel())
    return grid.sample_labels(means[cut] >= 0.5, (photo.height, photo.width), corners=False)


def enlarged(soft: np.ndarray, size: tuple[int, ...], corners: bool) -> np.ndarray:
    """A (h, w) mask in [0, 1] at (*size) pixels, float32."""
    return grid.enlarge(torch.from_numpy(soft)[None, None], (size[0], size[1]), corners)[0, 0].numpy()

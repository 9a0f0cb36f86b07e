"""Superpixels of the picture itself, at pixel resolution, and the majority vote in them.

UMTFSS's released code votes inside Felzenszwalb's superpixels, on a canvas that is zero-padded to a square while the
scores are not, leaves out the last superpixel, and clusters padding along with the pictures. Here nothing is padded:
scores are stretched as the network's input was, and every superpixel votes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def superpixels(image: Image.Image, scale: float = 100, sigma: float = 0.8, min_size: int = 200) -> np.ndarray:
    """Felzenszwalb and Huttenlocher's (2004) segments of an RGB image: (H, W) int64 of 0..S-1.

    The values of `scale`, `sigma` and `min_size` (pixels) are those of the released UMTFSS, for a longer side of 640.
    """
    from skimage.segmentation import felzenszwalb

    return felzenszwalb(np.asarray(image), scale=scale, sigma=sigma, min_size=min_size).astype(np.int64)


def vote(labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The most frequent of the (H, W) `labels` within each of the (H, W) `segments` 0..S-1: (S,), ties to the lower."""
    present, numbers = np.unique(labels, return_inverse=True)
    pairs = segments.ravel() * len(present) + numbers.ravel()
    counts = np.bincount(pairs, minlength=(int(segments.max()) + 1) * len(present))
    return present[counts.reshape(-1, len(present)).argmax(axis=1)]

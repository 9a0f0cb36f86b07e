"""Superpixels of the picture itself, at pixel resolution, and the majority vote in them.

UMTFSS's released code votes inside Felzenszwalb's superpixels, on a canvas that is zero-padded to a square while the
scores are not, leaves out the last superpixel, and clusters padding along with the pictures. Here nothing is padded:
scores are stretched as the network's input was, and every superpixel votes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from fss.imaging import images


def superpixels(image: Image.Image, side: int = 320) -> np.ndarray:
    """Felzenszwalb and Huttenlocher's (2004) segments of an RGB image that is shrunk first.

    (h, w) int64 of 0..S-1, the longer side at most `side` pixels: the time goes with the pixels, and features of
    stride 16 see no finer borders. Scale and sigma are those of the released UMTFSS, and so is the least segment: 200
    pixels of a picture whose longer side is 640, the same share of a smaller one.
    """
    from skimage.segmentation import felzenszwalb

    small = images.fit(image, side)
    least = max(round(200 * (max(small.size) / 640) ** 2), 1)
    return felzenszwalb(np.asarray(small), scale=100, sigma=0.8, min_size=least).astype(np.int64)


def vote(labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The most frequent of the (H, W) `labels` within each of the (H, W) `segments` 0..S-1: (S,), ties to the lower."""
    present, numbers = np.unique(labels, return_inverse=True)
    pairs = segments.ravel() * len(present) + numbers.ravel()
    counts = np.bincount(pairs, minlength=(int(segments.max()) + 1) * len(present))
    return present[counts.reshape(-1, len(present)).argmax(axis=1)]

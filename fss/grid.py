"""Where the cells of a feature grid lie in the image, and how masks, logits and labels move between the two.

Two geometries (`corners`): in convolutional networks with symmetric padding and inputs of 32k+1 pixels the cells'
centres are the pixels 0, stride, ..., S-1, the outermost on the image's border (`corners=True`); in transformers and
VGG the cells tile the image (`corners=False`). Mixing them up moves every mask by up to half a stride.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

_FINE = 8


def cells(mask: np.ndarray, size: int, corners: bool) -> torch.Tensor:
    """An (H, W) mask in {0, 1, 255} as (2, size, size) float32: each cell's shares of background and of foreground.

    Void pixels are in neither share, so what is weighted by the shares never counts them.
    """
    shares = torch.from_numpy(np.stack([mask == 0, mask == 1])).float()
    if not corners:
        return F.adaptive_avg_pool2d(shares, size)
    side = (size - 1) * _FINE + 1
    fine = F.interpolate(shares[None], size=(side, side), mode="nearest-exact")
    return F.avg_pool2d(fine, _FINE + 1, _FINE, _FINE // 2, count_include_pad=False)[0]


def enlarge(values: torch.Tensor, size: tuple[int, int], corners: bool) -> torch.Tensor:
    """(B, C, h, w) logits or votes of cells to (B, C, *size) float32 at the pixels, bilinear."""
    return F.interpolate(values.float(), size=size, mode="bilinear", align_corners=corners)


def enlarge_labels(labels: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """(h, w) labels to (*size) uint16: every label's indicator is enlarged and the strongest wins: smooth borders."""
    present, inverse = np.unique(labels, return_inverse=True)
    one_hot = F.one_hot(torch.from_numpy(inverse.reshape(labels.shape)), len(present)).permute(2, 0, 1)[None]
    votes = enlarge(one_hot, size, corners)[0]
    return present[votes.argmax(0).numpy()].astype(np.uint16)


def sample_labels(labels: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """The values of (H, W) labels at the centres of the cells of a grid of `size` (h, w)."""
    index = [_centres(full, number, corners) for full, number in zip(labels.shape, size, strict=True)]
    return labels[np.ix_(*index)]


def _centres(full: int, number: int, corners: bool) -> np.ndarray:
    if corners:
        return np.rint(np.linspace(0, full - 1, number)).astype(int)
    return ((np.arange(number) + 0.5) * full / number).astype(int)

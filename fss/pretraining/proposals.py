"""Object proposals without labels: what stands out from the image's border, as connected regions.

The border of a picture is mostly background, so an object is what is unlike it: the robust Mahalanobis distance to the
border's colours and their local spread. The prior is that of Wei et al., "Geodesic saliency using background priors"
(ECCV 2012); the distance that of Zhang et al., "Minimum barrier salient object detection at 80 FPS" (ICCV 2015). Coarse
on purpose: it teaches a network where objects may be, the network learns better.
"""

import numpy as np
import torch
from torch.nn import functional as F

from fss.clustering.otsu import otsu


def border_saliency(images: torch.Tensor, *, side: int = 32, trim: float = 2.5) -> torch.Tensor:
    """How unlike the border each cell of an image is.

    images (B, 3, S, S) float in [0, 1], S a multiple of `side` -> (B, side, side) float32 >= 0, in standard deviations
    of the border. Objects may touch the border: its statistics are taken again, twice, without the cells whose squared
    distance exceeds `trim` medians.
    """
    cells = _describe(images.float(), side)
    rim = torch.ones(side, side, dtype=torch.bool, device=images.device)
    rim[2:-2, 2:-2] = False
    border, weights = cells[:, :, rim], torch.ones_like(cells[:, 0, rim])
    for _ in range(3):
        mean, precision = _gaussian(border, weights)
        distance = _mahalanobis(border, mean, precision)
        weights = (distance <= trim * distance.median(1, keepdim=True).values).to(border.dtype)
    return _mahalanobis(cells.flatten(2), mean, precision).sqrt().unflatten(1, (side, side))


def components(mask: np.ndarray, *, most: int, smallest: int) -> np.ndarray:
    """Number the largest connected regions of a mask (H, W) bool: (H, W) uint8, 0 is none, 1 the largest.

    Thin bridges are cut first (binary opening); at most `most` regions, each of at least `smallest` cells.
    """
    from scipy import ndimage

    regions, count = ndimage.label(ndimage.binary_opening(mask))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    numbers = np.zeros(count + 1, np.uint8)
    for number, region in enumerate(np.argsort(-sizes, kind="stable")[:most], 1):
        if sizes[region] >= smallest:
            numbers[region + 1] = number
    return numbers[regions]


def propose(images: torch.Tensor, *, side: int = 32, most: int = 4, smallest: int = 20) -> torch.Tensor:
    """Numbered object proposals of images (B, 3, S, S) float in [0, 1]: (B, side, side) uint8, 0 is background."""
    saliency = border_saliency(images, side=side)
    masks = (saliency > otsu(saliency.flatten(1))[:, None, None]).cpu().numpy()
    return torch.from_numpy(np.stack([components(mask, most=most, smallest=smallest) for mask in masks]))


def _describe(images: torch.Tensor, side: int) -> torch.Tensor:
    """Smoothed mean and standard deviation of the colours in each cell: (B, 6, side, side), about one unit wide."""
    if images.shape[-1] % side or images.shape[-2] != images.shape[-1]:
        raise ValueError(f"images must be square with a side that is a multiple of {side}, got {tuple(images.shape)}")
    images = 4 * images
    cell = images.shape[-1] // side
    mean = F.avg_pool2d(images, cell)
    spread = (F.avg_pool2d(images**2, cell) - mean**2).clamp(min=1e-6).sqrt()
    return F.avg_pool2d(F.pad(torch.cat((mean, spread), 1), (1, 1, 1, 1), mode="replicate"), 3, 1)


def _gaussian(points: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean (B, C, 1) and inverse covariance (B, C, C) of points (B, C, N)."""
    weights = weights[:, None] / weights.sum(1)[:, None, None]
    mean = (points * weights).sum(2, keepdim=True)
    off = points - mean
    covariance = (off * weights) @ off.mT + 0.01 * torch.eye(points.shape[1], device=points.device)
    return mean, torch.linalg.inv(covariance)


def _mahalanobis(points: torch.Tensor, mean: torch.Tensor, precision: torch.Tensor) -> torch.Tensor:
    """Squared distance of points (B, C, N): (B, N)."""
    off = points - mean
    return (off * (precision @ off)).sum(1).clamp(min=0)

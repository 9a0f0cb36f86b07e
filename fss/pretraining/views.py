"""Two augmented views of each image and of the object proposals in it, for self-supervised learning.

Everything random about sample `index` is one row of uniform numbers, drawn from (seed, index) alone; the rest is
arithmetic on batched tensors of any device. The same sample gets the same views in any batch, on any worker.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from fss.imaging.images import normalise

_GREY = (0.299, 0.587, 0.114)
_DRAWS = 16  # uniform numbers that a view takes


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How views are made; the colour changes are those of MoCo v2 and SimCLR, in the order brightness to grey."""

    crop: int = 96
    """Side of a view, pixels; a multiple of the backbone's stride."""
    scale: tuple[float, float] = (0.4, 1.0)
    """Area of the crop, share of the image's."""
    aspect: float = 0.2
    """Largest absolute logarithm of the crop's width over height, halved."""
    grid: int = 12
    """Side of the proposals' map, cells: the crop over the backbone's stride."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.6
    """Largest relative change."""
    hue: float = 0.2
    """Largest turn of the hue, share of the circle."""
    grey: float = 0.2
    blur: float = 0.3
    """Probability."""

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must satisfy 0 < low <= high <= 1, got {self.scale}")


class Views(NamedTuple):
    """Both views of B images, and where the proposals of each image lie in them."""

    images: torch.Tensor
    """(2, B, 3, crop, crop) float32, ImageNet-normalised."""
    proposals: torch.Tensor
    """(2, B, grid, grid) int64: the number of the proposal at the middle of each cell, 0 is background."""


def make_views(
    images: torch.Tensor, proposals: torch.Tensor, indices: torch.Tensor, *, seed: int, config: ViewConfig
) -> Views:
    """Views of images (B, 3, H, W) float in [0, 1] with proposals (B, h, w) uint8 of any size.

    indices (B,) int number the samples drawn over the whole training: row b is a pure function of (image b, seed, index
    b), so that an image which is seen again wants another index.
    """
    draws = uniforms(seed, indices, 2 * _DRAWS).to(images.device).unflatten(1, (2, _DRAWS)).unbind(1)
    boxes = [_box(draw, config) for draw in draws]
    seen = [_recolour(crop(images, box, config.crop), draw, config) for box, draw in zip(boxes, draws, strict=True)]
    numbers = [crop(proposals[:, None].float(), box, config.grid, mode="nearest")[:, 0] for box in boxes]
    return Views(normalise(torch.stack(seen)), torch.stack(numbers).long())


def uniforms(seed: int, indices: torch.Tensor, count: int) -> torch.Tensor:
    """A row of `count` uniform numbers in [0, 1) for each of B indices, (B, count) float32, from (seed, index)."""
    rows = []
    for index in indices.tolist():
        state = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        rows.append(torch.rand(count, generator=torch.Generator().manual_seed(state)))
    return torch.stack(rows)


def _box(draws: torch.Tensor, config: ViewConfig) -> torch.Tensor:
    """Random boxes (B, 4) inside the image; see `crop`."""
    area = config.scale[0] + (config.scale[1] - config.scale[0]) * draws[:, 0]
    aspect = torch.exp(config.aspect * (2 * draws[:, 1] - 1))
    size = torch.stack((area.sqrt() * aspect, area.sqrt() / aspect), 1).clamp(max=1)
    centre = (1 - size) * (2 * draws[:, 2:4] - 1)
    mirror = torch.where(draws[:, 4:5] < 0.5, -1.0, 1.0)
    return torch.cat((size[:, :1] * mirror, size[:, 1:], centre), 1)


def crop(images: torch.Tensor, box: torch.Tensor, side: int, *, mode: str = "bilinear") -> torch.Tensor:
    """Resample boxes (B, 4) of images (B, C, H, W) to (B, C, side, side): a box is x and y scale, x and y offset.

    The point p of a view is the point scale * p + offset of its image, both in [-1, 1]; a negative scale mirrors.
    """
    theta = torch.cat((torch.diag_embed(box[:, :2]), box[:, 2:, None]), 2)
    grid = F.affine_grid(theta, [len(images), 1, side, side], align_corners=False)
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def _recolour(images: torch.Tensor, draws: torch.Tensor, config: ViewConfig) -> torch.Tensor:
    """Brightness, contrast, saturation, hue and blur of images (B, 3, h, w) in [0, 1], a row of draws each."""
    signed = (2 * draws[:, 5:9] - 1)[..., None, None, None]
    weights = images.new_tensor(_GREY).view(1, 3, 1, 1)
    images = (images * (1 + config.brightness * signed[:, 0])).clamp(0, 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * (1 + config.contrast * signed[:, 1])).clamp(0, 1)
    colour = torch.where(draws[:, 9, None, None, None] < config.grey, 0, 1 + config.saturation * signed[:, 2])
    grey = (images * weights).sum(1, keepdim=True)
    images = (grey + (images - grey) * colour).clamp(0, 1)
    turned = torch.einsum("bij,bjhw->bihw", _hue_turn(config.hue * signed[:, 3].flatten()), images).clamp(0, 1)
    blurred = F.avg_pool2d(F.pad(turned, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.where(draws[:, 10, None, None, None] < config.blur, blurred, turned)


def _hue_turn(turns: torch.Tensor) -> torch.Tensor:
    """Rotations of RGB space about its grey diagonal, (B, 3, 3), by turns (B,) of the circle (Rodrigues' formula)."""
    angle = 2 * math.pi * turns[:, None, None]
    cross = turns.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    identity = torch.eye(3, dtype=turns.dtype, device=turns.device)
    return identity + torch.sin(angle) * cross + (1 - torch.cos(angle)) * (cross @ cross)

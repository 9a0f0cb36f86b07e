"""Views as tensors, a batch at a time: one affine resampling, then colours and blur; masks move in step.

What lies outside of the image becomes the mean colour of ImageNet (0 after normalisation), and void in masks. What a
view does not change comes back to the bit, and a row does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from fss.imaging.images import MEAN, VOID, normalise
from fss.tasks.views import View

_GREY = (0.299, 0.587, 0.114)


def images(pixels: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """Views of squeezed images, (B, 3, S, S) uint8 or float in [0, 1]: ImageNet-normalised float32 of that shape."""
    values = pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels.float().clone()
    middle = values.new_tensor(MEAN).view(3, 1, 1)
    _change(values, views, lambda v: v.moved, lambda x, v: _resample(x - middle, v, "bilinear") + middle)
    _change(values, views, lambda v: v.flip and not v.moved, lambda x, _: x.flip(-1))
    _change(values, views, _recoloured, _recolour)
    for row, view in enumerate(views):
        if view.hue:
            from torchvision.transforms.v2.functional import adjust_hue  # here, for it takes seconds and few views turn

            values[row] = adjust_hue(values[row], view.hue)
        if view.blur:
            values[row] = _blur(values[row], view.blur)
    return normalise(values)


def masks(labels: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """The same views of (B, S, S) uint8 masks in {0, 1, 255}: the nearest pixel, 255 outside of the image."""
    seen = labels.clone()

    def move(part: torch.Tensor, chosen: Sequence[View]) -> torch.Tensor:
        # One more for all, so that 0 is outside; float32 holds 256.
        moved = _resample(part[:, None].float() + 1, chosen, "nearest")[:, 0].round() - 1
        return torch.where(moved < 0, VOID, moved).to(torch.uint8)

    _change(seen, views, lambda v: v.moved, move)
    _change(seen, views, lambda v: v.flip and not v.moved, lambda x, _: x.flip(-1))
    return seen


def square(mask: torch.Tensor, size: int) -> torch.Tensor:
    """An (H, W) uint8 mask squeezed to (size, size) as its image is, the nearest pixel."""
    return F.interpolate(mask[None, None], size=(size, size), mode="nearest-exact")[0, 0]


def _change(
    values: torch.Tensor,
    views: Sequence[View],
    which: Callable[[View], bool],
    how: Callable[[torch.Tensor, Sequence[View]], torch.Tensor],
) -> None:
    """Replace the rows of the views that are concerned."""
    rows = [row for row, view in enumerate(views) if which(view)]
    if rows:
        values[rows] = how(values[rows], [views[row] for row in rows])


def _resample(values: torch.Tensor, views: Sequence[View], mode: str) -> torch.Tensor:
    matrices = torch.stack([torch.from_numpy(view.affine()) for view in views]).to(values)
    grid = F.affine_grid(matrices, [len(values), 1, *values.shape[-2:]], align_corners=False)
    return F.grid_sample(values, grid, mode=mode, padding_mode="zeros", align_corners=False)


def _recoloured(view: View) -> bool:
    return (view.brightness, view.contrast, view.saturation) != (1, 1, 1)


def _recolour(values: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """Brightness, contrast about the mean grey, saturation about each pixel's grey, of (B, 3, S, S) in [0, 1]."""
    factors = values.new_tensor([[v.brightness, v.contrast, v.saturation] for v in views])[..., None, None, None]
    brightness, contrast, saturation = factors.unbind(1)
    weights = values.new_tensor(_GREY).view(1, 3, 1, 1)
    values = (values * brightness).clamp_(0, 1)
    mean = torch.stack([(row * weights[0]).sum(0).mean() for row in values]).view(-1, 1, 1, 1)
    values = values.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    grey = (values * weights).sum(1, keepdim=True)
    return values.mul_(saturation).add_(grey * (1 - saturation)).clamp_(0, 1)


def _blur(values: torch.Tensor, share: float) -> torch.Tensor:
    """A separable Gaussian of a standard deviation of `share` of the side, cut at three of them; borders continued."""
    sigma = share * values.shape[-1]
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=values.device) / max(sigma, 1e-6)) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(values[None], (reach,) * 4, mode="replicate")[0][:, None]
    across = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(across, kernel.view(1, 1, -1, 1))[:, 0]

"""Every network's own word on where its cells lie: what changes in an image changes the cells that are there.

A wrong word moves every mask by half a stride, and nothing else tells.
"""

import math

import pytest
import torch
from torch import nn

from fss import backbones
from fss.backbones import Backbone
from tests.fss.backbones.noise import noise


def symmetric(name: str) -> Backbone:
    """The backbone with mirrored kernels, so that what a pixel does spreads evenly to both sides."""
    backbone = backbones.build(name, seed=1)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    return backbone


def side_of(backbone: Backbone, corners: bool, cells: int = 8) -> int:
    """A side at which a grid of this geometry is symmetric, of `cells` or more."""
    step = math.lcm(backbone.stride, 32)
    return step * math.ceil(cells * backbone.stride / step) + corners


def off_centre(backbone: Backbone, width: int) -> dict[str, float]:
    """Per level, how far from the image's middle that column lies which moves the middle of the grid, in cells.

    Columns one cell wide change one at a time, evenly around the middle; a line through the centroids of what they
    change says which one would change the middle of the grid.
    """
    stride, middle = backbone.stride, (width - 1) / 2
    centres = [round(middle + shift * stride / 4) for shift in range(-6, 7, 2)]
    height = 3 * math.lcm(stride, 32) + width % 2  # rows of cells whose mean does not hang on single kernels
    images = noise(1, 3, height, width).repeat(1 + len(centres), 1, 1, 1)
    for image, centre in zip(images[1:], centres, strict=True):
        columns = slice(centre - stride // 2, centre + stride // 2 + 1)
        image[..., columns] = noise(*image[..., columns].shape, seed=1)
    places = torch.tensor(centres) - middle
    found = {}
    for level, values in backbone(images).items():
        changed = (values[1:] - values[:1]).square().sum(dim=(1, 2))
        cells = changed.shape[1]
        centroids = (changed * torch.arange(cells)).sum(dim=1) / changed.sum(dim=1) - (cells - 1) / 2
        slope = (places * (centroids - centroids.mean())).sum() / (places * (places - places.mean())).sum()
        found[level] = float(centroids.mean() / slope - places.mean()) * cells / width
    return found


#: Of timm: a transformer, dilated and enlarged pyramids of both geometries, shifted windows.
OF_TIMM = (
    "timm/vit_tiny_patch16_224",
    "timm/resnet18",
    "timm/mobilenetv4_conv_small_035",
    "timm/convnext_atto",
    "timm/swin_s3_tiny_224",
)


@pytest.mark.parametrize("name", [*(name for name in backbones.names() if "*" not in name), *OF_TIMM])
def test_cells_lie_where_the_network_says(name):
    backbone = symmetric(name)
    side = side_of(backbone, backbone.corners)
    grid = backbone(noise(1, 3, side, side))["high"].shape[-1]
    assert grid == (side - backbone.corners) // backbone.stride + backbone.corners
    for level, error in off_centre(backbone, side).items():
        assert abs(error) < 0.2, level


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnet101"])
def test_a_wrong_word_would_be_noticed(name):
    """Of one with centres on the border that says its cells tile the image."""
    backbone = symmetric(name)
    assert abs(off_centre(backbone, side_of(backbone, corners=False))["mid"]) > 0.25

"""VGG-16 without batch normalisation (Simonyan & Zisserman 2015), torchvision's state-dict keys, stride 8, 16 or 32."""

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from fss.backbones.dilation import check_stride, dilate_stage
from fss.backbones.network import Network

NAMES = ("vgg16",)

POOL3, POOL4, POOL5 = 16, 23, 30  # places of the max poolings in torchvision's `features`


class VGG16(Network):
    """low = conv3_3 pooled to stride 8, mid = conv4_3, high = conv5_3 (both max-pooled down to `stride`).

    At stride 8 the fourth pooling slides by one pixel (same size, zeros beyond the edge: the values are not negative)
    and the fifth stage is dilated by 2, which keeps the values on the coarse grid when S is a multiple of 16. Windows
    of two pixels have no centre pixel, so there `high` lies half a cell (4 px) right of and below `mid`.
    """

    corners = False

    def __init__(self, name: str = "vgg16", stride: int | None = None) -> None:
        super().__init__()
        self.stride = check_stride(name, stride, (8, 16, 32), default=16)
        vgg = torchvision.models.vgg
        self.features = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)[:POOL5]  # without the 120 M of the classifier
        for module in self.features:
            if isinstance(module, nn.Conv2d):  # torchvision's own start; the default one dies out over 13 layers
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if self.stride == 8:
            dilate_stage(self.features[POOL4 + 1 :], before=1, after=2)
        self.channels = {"low": 256, "mid": 512, "high": 512}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; see `fss.backbones.Features`."""
        low = self.features[: POOL3 + 1](images)
        mid = self.features[POOL3 + 1 : POOL4](low)
        pooled = F.max_pool2d(F.pad(mid, (0, 1, 0, 1)), 2, stride=1) if self.stride == 8 else F.max_pool2d(mid, 2)
        high = self.features[POOL4 + 1 :](pooled)
        if self.stride == 8:
            return {"low": low, "mid": mid, "high": high}
        step = self.stride // 16
        return {"low": low, "mid": F.max_pool2d(pooled, step), "high": F.max_pool2d(high, step)}


NETWORK = VGG16

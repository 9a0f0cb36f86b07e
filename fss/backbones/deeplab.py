"""DeepLabv3 and DeepLabv3+ (Chen et al. 2017, 2018) on ResNet-50, without their last layer.

The pixel-level meta-learner's features: "by removing the final classification layers of DeepLabv3+". `deeplabv3` has
torchvision's state-dict keys. torchvision has no v3+: `deeplabv3plus` adds the paper's decoder to it, with the keys of
the usual PyTorch port (`classifier.project`, `.aspp`, `.classifier` beside `backbone`). Mind what weights have seen:
torchvision's were trained with labels of PASCAL VOC's classes.
"""

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from fss.backbones.dilation import check_stride
from fss.backbones.network import Network
from fss.backbones.resnet import ResNet

NAMES = ("deeplabv3", "deeplabv3plus")

_TRUNK = "resnet50"
#: Rates of the pyramid's dilated convolutions, by the trunk's stride.
_RATES = {8: [12, 24, 36], 16: [6, 12, 18]}


class DeepLab(Network):
    """low = layer2 (stride 8), mid = layer3, high = the last features before the classifier (both at `stride`).

    The decoder of v3+ works at stride 4; of what comes of it the cells of the coarser grid are taken. It enlarges the
    pyramid's output between corners, where this backbone's outermost cells lie (the port: between borders).
    """

    corners = True
    left_out = ("aux_classifier.",)  # it helped to train the trunk

    def __init__(self, name: str, stride: int | None = None) -> None:
        super().__init__()
        self.stride = check_stride(name, stride, tuple(_RATES), default=16)
        self.backbone = ResNet(_TRUNK, self.stride)
        width, rates = self.backbone.channels["high"], _RATES[self.stride]
        deeplab = torchvision.models.segmentation.deeplabv3
        self.classifier: nn.Module
        if name == "deeplabv3plus":
            self.classifier = FineDecoder(deeplab.ASPP(width, rates), self.stride)
        else:
            self.classifier = nn.Sequential(*list(deeplab.DeepLabHead(width, 1, rates))[:-1])
        self.channels = self.backbone.channels | {"high": 256}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; see `fss.backbones.Features`."""
        fine = self.backbone.stem(images)
        features = self.backbone.stages(fine)
        given = (features["high"], fine) if isinstance(self.classifier, FineDecoder) else (features["high"],)
        return features | {"high": self.classifier(*given)}


class FineDecoder(nn.Module):
    """DeepLabv3+'s: fine features, reduced to 48 channels, beside the pyramid's, and a 3x3 convolution over both."""

    def __init__(self, aspp: nn.Module, stride: int) -> None:
        super().__init__()
        self.step = stride // 4
        self.aspp = aspp
        self.project = nn.Sequential(nn.Conv2d(256, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
        self.classifier = nn.Sequential(nn.Conv2d(304, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU())

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """(B, 256, h, w) from the trunk's (B, 2048, h, w) at `stride` and its (B, 256, H, W) at stride 4."""
        context = F.interpolate(self.aspp(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=True)
        fused = self.classifier(torch.cat([self.project(fine), context], dim=1))
        return fused[..., :: self.step, :: self.step]


NETWORK = DeepLab

"""DeepLabv3 (Chen et al. 2017) on ResNet-50 with torchvision's state-dict keys, without its last layer.

The pixel-level meta-learner's features: "by removing the final classification layers of DeepLabv3+". torchvision has no
v3+: what that adds to v3, a decoder on fine features, is left out, as nobody's weights for it come with torchvision's
trunk. Mind what weights have seen: torchvision's were trained with the labels of PASCAL VOC's classes.
"""

import torch
import torchvision
from torch import nn

from fss.backbones.dilation import check_stride
from fss.backbones.resnet import ResNet

_TRUNK = "resnet50"
#: Rates of the pyramid's dilated convolutions, by the trunk's stride.
_RATES = {8: [12, 24, 36], 16: [6, 12, 18]}


class DeepLabV3(nn.Module):
    """low = layer2 (stride 8), mid = layer3, high = the last features before the classifier (both at `stride`)."""

    def __init__(self, name: str = "deeplabv3", stride: int | None = None) -> None:
        super().__init__()
        self.stride = check_stride(name, stride, tuple(_RATES), default=16)
        self.backbone = ResNet(_TRUNK, self.stride)
        head = torchvision.models.segmentation.deeplabv3.DeepLabHead
        layers = list(head(self.backbone.channels["high"], 1, _RATES[self.stride]))
        self.classifier = nn.Sequential(*layers[:-1])
        self.channels = self.backbone.channels | {"high": 256}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; see `fss.backbones.Features`."""
        features = self.backbone(images)
        return features | {"high": self.classifier(features["high"])}

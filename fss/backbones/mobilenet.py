"""MobileNetV2 (Sandler et al. 2018) with torchvision's state-dict keys, dilated to stride 8, 16 or 32."""

import torch
import torchvision
from torch import nn

from fss.backbones.dilation import check_stride, dilate_to_stride, subsample
from fss.backbones.network import Network

NAMES = ("mobilenet_v2",)

LOW, MID, HIGH = 6, 13, 17  # torchvision's `features[i]`: the last blocks at native stride 8, 16 and 32


class MobileNetV2(Network):
    """low = features[6] (stride 8), mid = features[13], high = features[17] (both at `stride`).

    features[18], the 1x1 expansion to 1280 channels, belongs to the classifier and is left out.
    """

    corners = True
    left_out = ("features.18.",)

    def __init__(self, name: str = "mobilenet_v2", stride: int | None = None) -> None:
        super().__init__()
        self.stride = check_stride(name, stride, (8, 16, 32), default=16)
        self.features = torchvision.models.mobilenet_v2(weights=None).features[: HIGH + 1]
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):  # torchvision's start, by fan-out, makes depthwise outputs vanish (1e-9)
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        dilate_to_stride([self.features[LOW + 1 : MID + 1], self.features[MID + 1 :]], self.stride)
        self.channels = {"low": 32, "mid": 96, "high": 320}

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; see `fss.backbones.Features`."""
        low = self.features[: LOW + 1](images)
        mid = self.features[LOW + 1 : MID + 1](low)
        high = self.features[MID + 1 :](mid)
        return {"low": low, "mid": subsample(mid, 2) if self.stride == 32 else mid, "high": high}


NETWORK = MobileNetV2

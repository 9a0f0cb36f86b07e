"""ResNet-18, -50 and -101 (He et al. 2016) with torchvision's stem and state-dict keys, dilated to stride 8, 16 or 32.

A `_linear` one leaves out the ReLU that each level ends with, so that a cosine sees negative values too (MiningFSS,
Yang et al. 2021, released code); what follows a level inside the network sees it after the ReLU, as ever.

Not the deep-stem variant of PSPNet (`resnet50_v2.pth`) that PFENet, BAM and MaskSplit use: that is another network.
"""

import torch
import torchvision
from torch import nn

from fss.backbones.dilation import check_stride, dilate_to_stride, subsample
from fss.backbones.network import Network

#: Ends the names of those whose levels are taken before their last ReLU; their weights are the others'.
LINEAR = "_linear"
NAMES = ("resnet18", "resnet50", "resnet101", "resnet18_linear", "resnet50_linear", "resnet101_linear")


class ResNet(Network):
    """low = layer2 (stride 8), mid = layer3, high = layer4 (both at `stride`)."""

    corners = True

    def __init__(self, name: str, stride: int | None = None) -> None:
        super().__init__()
        self.linear = name.endswith(LINEAR)
        self.stride = check_stride(name, stride, (8, 16, 32), default=16)
        net = torchvision.models.get_model(self.torchvision_name(name), weights=None)
        self.conv1, self.bn1 = net.conv1, net.bn1
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        dilate_to_stride([self.layer3, self.layer4], self.stride)
        width = net.fc.in_features
        self.channels = {"low": width // 4, "mid": width // 2, "high": width}

    @classmethod
    def torchvision_name(cls, name: str) -> str:
        """The name without what says where levels are taken."""
        return name.removesuffix(LINEAR)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; see `fss.backbones.Features`."""
        return self.stages(self.stem(images))

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """What layer1 makes of (B, 3, S, S) images, at stride 4."""
        x = torch.relu(self.bn1(self.conv1(images)))
        return self.layer1(nn.functional.max_pool2d(x, kernel_size=3, stride=2, padding=1))

    def stages(self, fine: torch.Tensor) -> dict[str, torch.Tensor]:
        """The features, from those of `stem`."""
        low, passed = self._left(self.layer2, fine)
        mid, passed = self._left(self.layer3, passed)
        high, _ = self._left(self.layer4, passed)
        return {"low": low, "mid": subsample(mid, 2) if self.stride == 32 else mid, "high": high}

    def _left(self, layer: nn.Sequential, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer is as a level, and what it passes on."""
        if not self.linear:
            outputs = layer(inputs)
            return outputs, outputs
        total = _before_relu(layer[-1], layer[:-1](inputs))
        return total, torch.relu(total)


def _before_relu(block: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The sum that a block of torchvision's puts through its last ReLU."""
    parts = dict(block.named_children())
    outputs = inputs
    for number in range(1, 4):
        if f"conv{number}" in parts:
            outputs = outputs if number == 1 else torch.relu(outputs)
            outputs = parts[f"bn{number}"](parts[f"conv{number}"](outputs))
    return outputs + (parts["downsample"](inputs) if "downsample" in parts else inputs)


NETWORK = ResNet
